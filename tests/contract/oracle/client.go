package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// call is one line of input. Payload is a serialized message of whatever type; Padding makes it longer by a field of so many bytes.
type call struct {
	ID       int    `json:"id"`
	Service  string `json:"service"`
	Method   string `json:"method"`
	Payload  []byte `json:"payload"`
	Padding  int    `json:"padding"`
	Timeout  int    `json:"timeout_ms"`
	Metadata string `json:"metadata"`
}

// answer is one line of output.
type answer struct {
	ID      int    `json:"id"`
	Code    int    `json:"code"`
	Message string `json:"message"`
	Payload []byte `json:"payload"`
}

// client makes every call of its input at once, each on a goroutine, on one connection.
func client(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	var running sync.WaitGroup
	var printing sync.Mutex
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var next call
		if err := in.Decode(&next); err == io.EOF {
			running.Wait()
			return nil
		} else if err != nil {
			return err
		}
		running.Add(1)
		go func() {
			defer running.Done()
			result := next.do(client)
			printing.Lock()
			defer printing.Unlock()
			if err := out.Encode(result); err != nil {
				fail(err)
			}
		}()
	}
}

// do makes the call. The messages are empty ones whose unknown fields are the bytes, so that no type of the service is needed.
func (c call) do(client *ttrpc.Client) answer {
	ctx := context.Background()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Timeout)*time.Millisecond)
		defer cancel()
	}
	if c.Metadata != "" {
		ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"traceparent": {c.Metadata}})
	}
	var request, response emptypb.Empty
	request.ProtoReflect().SetUnknown(append(c.Payload, padding(c.Padding)...))
	err := client.Call(ctx, c.Service, c.Method, &request, &response)
	told := status.Convert(err)
	if errors.Is(err, context.DeadlineExceeded) { // the client's own clock, not the server's answer
		told = status.FromContextError(context.DeadlineExceeded)
	}
	return answer{c.ID, int(told.Code()), told.Message(), response.ProtoReflect().GetUnknown()}
}
