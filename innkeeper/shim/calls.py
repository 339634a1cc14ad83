"""Answer a call of containerd: decode, handle, and make a status of whatever fails."""

import traceback
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from innkeeper.client import RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.shim import log
from innkeeper.shim.errors import CallError
from innkeeper.wire import status
from innkeeper.wire.envelope import Request, Response


def answer(request: Request, message: Any, handler: Callable[[Any], Any]) -> Response:
    """Return the answer of `handler` to a call whose payload is a `message`.

    A failure becomes the answer's status, whatever it is: this is the edge of a connection.
    """
    try:
        made = handler(message.FromString(request.payload))
    except CallError as error:
        return Response(error.code, error.message)
    except RpcError as error:
        return Response(status.UNAVAILABLE if error.lost else error.code, error.message)
    except InnkeeperError as error:
        return Response(status.UNKNOWN, error.message + (f" ({error.hint})" if error.hint else ""))
    except DecodeError as error:
        return Response(status.INVALID_ARGUMENT, f"{request.method}: {error}")
    except Exception as error:  # noqa: BLE001 - the edge of a connection: every call is answered
        log.error(traceback.format_exc())
        return Response(status.UNKNOWN, f"{request.method}: {type(error).__name__}: {error}")
    return Response(payload=made.SerializeToString())


def unknown(request: Request) -> Response:
    """Return the answer to a call of a method that is not served."""
    return Response(status.UNIMPLEMENTED, f"/{request.service}/{request.method} is not implemented")
