"""The protocol that host and guest share: frames, connection, envelope, status codes, messages.

Nothing in this package does I/O, waits or takes a lock. Bytes go in, events come out, and the user
sends what `data_to_send` returns. The host's client has threads, the agent and its gateway have an
event loop, and all three share this code.

## Frames, streams, calls

A connection is a sequence of frames (`frames`). A frame belongs to a stream, and a stream is one
call: a request, data frames if it is a streaming call, a response. Only the client opens streams,
with odd ids that it never uses again, so an answer that comes late cannot reach another call. The
payload of a request or response is an envelope (`envelope`): names, deadline, metadata or status
around the message of the method.

## Errors

The header gives the position of the next frame, whatever is in the payload. So what is wrong in one
call is answered on its stream and the connection goes on: a peer that misbehaves in one call does
not end those of others. ttRPC has no frame that cancels a call. A caller that gives up forgets the
stream (`forget`), and a response that still arrives is dropped.

## Limits

A payload has at most 4 MiB (`frames.MAX_PAYLOAD`). A longer one is discarded while it arrives and
never held, because its length is the peer's choice. Here nothing limits how many calls are open or
how much waits to be sent: the user does, by `streams` and `outgoing` (agent/service/server.py).

## Who closes what

The user owns the socket and closes it. A stream is over when its response has been sent or
received. The server ends it also if the client has sent no end of its data. When the connection
ends, the user ends the calls that are left: the client fails them, and the agent cancels those that
only wait and lets the others run to their end.

`multiplexer` is one layer below: it makes connections of a virtio-serial port, on which these
frames travel as they do on vsock.
"""
