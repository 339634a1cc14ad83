"""google.rpc.ErrorInfo: the part of a status that is for programs, as its message is for people.

It is encoded and decoded by hand, as in `envelope`.

    ErrorInfo { 1 reason:string  2 domain:string  3 metadata:map<string, string> }

The agent's reasons and their metadata:

    STEP_FAILED   step: the name of the step that failed
                  errno: the symbol of its error, as in errno(3), if there is one
    REFUSED       field: the path of the field that is not applied
"""

from innkeeper.wire.envelope import encode_pairs, read_pairs

TYPE_URL = "type.googleapis.com/google.rpc.ErrorInfo"
DOMAIN = "innkeeper"
STEP_FAILED = "STEP_FAILED"
REFUSED = "REFUSED"


def encode(reason: str, metadata: dict[str, str]) -> tuple[str, bytes]:
    """Return (type URL, serialized message) for `Response.details`."""
    return TYPE_URL, encode_pairs({1: reason, 2: DOMAIN}, metadata)


def decode(details: list[tuple[str, bytes]]) -> tuple[str, dict[str, str]]:
    """Return reason and metadata of the first ErrorInfo of this domain.

    Returns ("", {}) if there is none. Raises DecodeError.
    """
    for url, value in details:
        if url == TYPE_URL:
            texts, metadata = read_pairs(value)
            if texts.get(2) == DOMAIN:
                return texts.get(1, ""), metadata
    return "", {}
