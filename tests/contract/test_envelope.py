"""The envelope's codec against protobuf, both ways, and against bytes that are no message."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.wire import error_info
from innkeeper.wire.envelope import MAX_FIELDS, MAX_PAIR_FIELDS, DecodeError, Request, Response
from tests.contract.protobuf_envelope import OracleRequest, OracleResponse

TEXT = st.text(max_size=300)
PAYLOAD = st.binary(max_size=400)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
REQUESTS = st.builds(Request, TEXT, TEXT, PAYLOAD, INT64, st.lists(st.tuples(TEXT, TEXT), max_size=8))
DETAILS = st.lists(st.tuples(TEXT, PAYLOAD), max_size=3)
RESPONSES = st.one_of(
    st.builds(Response, st.just(0), st.just(""), PAYLOAD), st.builds(Response, INT32, TEXT.filter(bool), PAYLOAD, DETAILS)
)

Facts = tuple[object, ...]


def request_facts(request: Any) -> Facts:
    pairs = [pair if isinstance(pair, tuple) else (pair.key, pair.value) for pair in request.metadata]
    return request.service, request.method, request.payload, request.timeout_nano, pairs


def response_facts(response: Response) -> Facts:
    return response.code, response.message, response.payload, response.details


def oracle_response_facts(response: Any) -> Facts:
    details = [(detail.type_url, detail.value) for detail in response.status.details]
    return response.status.code, response.status.message, response.payload, details


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


# Fields of any number and wire type but groups: known ones, unknown ones, and known numbers with the wrong type.
NUMBERS = st.one_of(st.integers(0, 6), st.integers(1, 1 << 29))
VARINTS = st.one_of(st.integers(0, 200), st.integers(0, (1 << 64) - 1)).map(varint)
# One of 65 bits is left out: protobuf takes it where it skips the field, we do not.
LONG_VARINTS = st.sampled_from([b"\x80\x00", b"\x81\x80\x80\x00", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80"])
INNER = st.recursive(
    st.one_of(PAYLOAD, TEXT.map(str.encode)),
    lambda below: st.lists(
        st.tuples(NUMBERS, below).map(lambda field: tag(field[0], 2) + varint(len(field[1])) + field[1]), max_size=MAX_PAIR_FIELDS
    ).map(b"".join),
    max_leaves=8,
)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.one_of(VARINTS, LONG_VARINTS)).map(lambda field: tag(field[0], 0) + field[1]),
    st.tuples(NUMBERS, st.binary(min_size=8, max_size=8)).map(lambda field: tag(field[0], 1) + field[1]),
    st.tuples(NUMBERS, INNER).map(lambda field: tag(field[0], 2) + varint(len(field[1])) + field[1]),
    st.tuples(NUMBERS, st.binary(min_size=4, max_size=4)).map(lambda field: tag(field[0], 5) + field[1]),
)
MESSAGES = st.lists(FIELDS, max_size=12).map(b"".join)


def parsed(parse: Callable[[bytes], Any], facts: Callable[[Any], Facts], data: bytes) -> Facts | None:
    """What a decoder makes of the bytes; None where it refuses them."""
    try:
        return facts(parse(data))
    except (DecodeError, ProtobufError):
        return None


@given(REQUESTS)
def test_requests_are_read_by_protobuf(request: Request) -> None:
    data = request.encode()
    theirs = OracleRequest.FromString(data)
    assert request_facts(theirs) == request_facts(request)
    assert theirs.SerializeToString() == data


@given(RESPONSES)
def test_responses_are_read_by_protobuf(response: Response) -> None:
    assert oracle_response_facts(OracleResponse.FromString(response.encode())) == response_facts(response)


@given(REQUESTS)
def test_protobufs_requests_are_read(request: Request) -> None:
    theirs = OracleRequest(service=request.service, method=request.method, payload=request.payload, timeout_nano=request.timeout_nano)
    for key, value in request.metadata:
        theirs.metadata.add(key=key, value=value)
    assert request_facts(Request.decode(theirs.SerializeToString())) == request_facts(request)


@given(RESPONSES, st.booleans())
def test_protobufs_responses_are_read(response: Response, explicit: bool) -> None:
    theirs = OracleResponse(payload=response.payload)
    if explicit:
        theirs.status.SetInParent()  # as servers do that say OK with an empty status
    if response.code or response.message:
        theirs.status.code, theirs.status.message = response.code, response.message
        for url, value in response.details:
            theirs.status.details.add(type_url=url, value=value)
    assert response_facts(Response.decode(theirs.SerializeToString())) == response_facts(response)


@given(MESSAGES)
def test_both_make_the_same_of_odd_requests(data: bytes) -> None:
    assert parsed(Request.decode, request_facts, data) == parsed(OracleRequest.FromString, request_facts, data)


@given(MESSAGES)
def test_both_make_the_same_of_odd_responses(data: bytes) -> None:
    ours, theirs = parsed(Response.decode, response_facts, data), parsed(OracleResponse.FromString, oracle_response_facts, data)
    assert ours == theirs


@given(st.one_of(st.binary(max_size=64), MESSAGES), st.integers(0, 64))
def test_cut_or_random_bytes_raise_nothing_but_decode_error(data: bytes, cut: int) -> None:
    for piece in (data, data[:cut], data[cut:]):
        parsed(Response.decode, response_facts, piece)
        ours = parsed(Request.decode, request_facts, piece)
        if ours is not None:
            assert ours == request_facts(OracleRequest.FromString(piece))


@pytest.mark.parametrize("data", [b"\x0b\x0c", b"\x33\x08\x01\x34", b"\x0c", b"\x0e\x00", b"\x0f"])
def test_groups_and_unknown_wire_types_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="wire type"):
        Request.decode(data)
    with pytest.raises(DecodeError, match="wire type"):
        Response.decode(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a", "varint has no end"),
        (b"\x0a\x05abc", "runs over the end"),
        (b"\x0a\x01\xff", "UTF-8"),
        (b"\x2a\x03\x0a\x01\xff", "UTF-8"),
        (b"\x2a\x02\x0a\x05", "runs over the end"),
        (b"\x02\x00", "field number"),
        (b"\xff\xff\xff\xff\x7f\x00", "field number"),
        (b"\xff\xff\xff\xff\xff\x01\x00", "varint has no end"),
        (b"\x20" + b"\xff" * 9 + b"\x02", "too long"),
        (b"\x21\x00\x00", "runs over the end"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        Request.decode(data)


def test_one_message_has_a_bounded_number_of_fields() -> None:
    unknown, pair = b"\x78\x00", b"\x2a\x00"
    assert Request.decode(unknown * MAX_FIELDS).service == ""
    assert Request.decode(pair * MAX_FIELDS).metadata == [("", "")] * MAX_FIELDS
    for data in (unknown * (MAX_FIELDS + 1), pair * (MAX_FIELDS + 1), b"\x2a\x22" + unknown * (MAX_PAIR_FIELDS + 1)):
        with pytest.raises(DecodeError, match="fields"):
            Request.decode(data)
    with pytest.raises(DecodeError, match="fields"):
        Response.decode(b"\x0a" + varint(2 * MAX_FIELDS + 2) + unknown * (MAX_FIELDS + 1))


def test_exact_bytes() -> None:
    request = Request("grpc.Health", "Check", b"\x0a\x00", 30_000_000_000, [("a", "b")])
    head = b"\x0a\x0bgrpc.Health\x12\x05Check\x1a\x02\x0a\x00"
    assert request.encode() == head + b"\x20\x80\xd8\x8e\xe1\x6f" + b"\x2a\x06\x0a\x01a\x12\x01b"
    assert Response(payload=b"\x08\x01").encode() == b"\x12\x02\x08\x01"
    assert Response().encode() == b""
    assert Response(5, "gone").encode() == b"\x0a\x08\x08\x05\x12\x04gone"
    assert Response(-1).encode() == b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"


def test_a_message_that_cannot_be_encoded_does_not_stop_its_answer() -> None:
    """Names of files that are no UTF-8 reach error texts as lone surrogates."""
    assert Response.decode(Response(13, "no \udcff here").encode()).message == "no ? here"


def test_a_status_for_programs() -> None:
    detail = error_info.encode(error_info.STEP_FAILED, {"step": "find program", "errno": "ENOENT", "path": "\udcff"})
    answer = Response.decode(Response(13, "find program: x: not found", details=[("other", b"\xff"), detail]).encode())
    assert (answer.code, answer.message, answer.details[0]) == (13, "find program: x: not found", ("other", b"\xff"))
    assert error_info.decode(answer.details) == ("STEP_FAILED", {"step": "find program", "errno": "ENOENT", "path": "?"})
    assert error_info.encode("REFUSED", {"field": "hostname"}) == (
        "type.googleapis.com/google.rpc.ErrorInfo",
        b"\x0a\x07REFUSED\x12\x09innkeeper\x1a\x11\x0a\x05field\x12\x08hostname",
    )
    assert error_info.decode([]) == error_info.decode([(error_info.TYPE_URL, b"")]) == ("", {})
    anothers = b"\x0a\x07REFUSED\x12\x04else\x1a\x00"
    assert error_info.decode([(error_info.TYPE_URL, anothers), detail])[1]["step"] == "find program"
    with pytest.raises(DecodeError):
        error_info.decode([(error_info.TYPE_URL, b"\x0a\x05x")])
