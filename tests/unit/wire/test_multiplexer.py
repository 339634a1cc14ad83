"""The connections over one stream: whatever the order and the pieces, each keeps its bytes, its order and its window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.wire.multiplexer import (
    ACCEPT,
    CREDIT,
    CREDIT_STEP,
    DATA,
    END,
    HEADER,
    MAX_DATA,
    OPEN,
    READY,
    RESET,
    RESUME,
    WINDOW,
    Event,
    Multiplexer,
    ProtocolError,
)


def move(source: Multiplexer, target: Multiplexer, size: int = 1 << 20) -> list[Event]:
    """Take all that waits in `source` to `target`, in pieces of `size` bytes. Return the events."""
    data = source.data_to_send()
    return [event for at in range(0, len(data), size) for event in target.receive_data(data[at : at + size])]


def opened() -> tuple[Multiplexer, Multiplexer, int]:
    host, guest = Multiplexer(host=True), Multiplexer(host=False)
    number = host.open(1024)
    [event] = move(host, guest)
    assert (event.kind, event.connection, event.number) == (OPEN, number, 1024)
    guest.accept(number)
    assert [event.kind for event in move(guest, host)] == [ACCEPT]
    return host, guest, number


def test_the_guest_reports_that_it_is_ready() -> None:
    host, guest = Multiplexer(host=True), Multiplexer(host=False)
    guest.announce()
    assert [event.kind for event in move(guest, host)] == [READY]


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=400)), max_size=40), st.integers(1, 50))
def test_each_connection_has_its_own_bytes_in_order(pieces: list[tuple[int, bytes]], size: int) -> None:
    host, guest = Multiplexer(host=True), Multiplexer(host=False)
    numbers = [host.open(port) for port in range(4)]
    move(host, guest)
    sent = dict.fromkeys(numbers, b"")
    got = dict.fromkeys(numbers, b"")
    for index, data in pieces:
        host.send(numbers[index], data)
        sent[numbers[index]] += data
        for event in move(host, guest, size):
            got[event.connection] += event.data
            guest.consumed(event.connection, len(event.data))
    assert got == sent


def test_a_connection_that_is_not_read_has_its_window_and_no_more() -> None:
    host, guest, number = opened()
    total = 0
    while room := host.room(number):
        assert room <= MAX_DATA
        host.send(number, bytes(room))
        total += sum(len(event.data) for event in move(host, guest))
    assert total == WINDOW
    other = host.open(50051)
    assert host.room(other) > 0, "one connection that is not read must not hold up another"


def test_credit_returns_in_steps() -> None:
    host, guest, number = opened()
    for _ in range(CREDIT_STEP // MAX_DATA):
        host.send(number, bytes(MAX_DATA))
        move(host, guest)
    guest.consumed(number, CREDIT_STEP - 1)
    assert move(guest, host) == []
    guest.consumed(number, 1)
    [event] = move(guest, host)
    assert (event.kind, event.number) == (CREDIT, CREDIT_STEP)


def test_room_is_none_while_the_stream_is_full() -> None:
    host, _, number = opened()
    others = [host.open(1) for _ in range(8)]
    for other in others:
        while host.room(other):
            host.send(other, bytes(host.room(other)))
    assert host.room(number) == 0
    host.data_to_send()
    assert host.room(number) == MAX_DATA


def test_each_side_ends_its_own_direction() -> None:
    host, guest, number = opened()
    host.end(number)
    assert [event.kind for event in move(host, guest)] == [END]
    guest.send(number, b"the answer")
    guest.end(number)
    guest.end(number)
    assert [event.kind for event in move(guest, host)] == [DATA, END]
    assert host.room(number) == guest.room(number) == 0, "the connection is over on both sides"
    host.reset(number)
    assert host.outgoing == 0


def test_what_is_on_its_way_to_a_reset_connection_is_dropped() -> None:
    host, guest, number = opened()
    guest.send(number, b"too late")
    host.reset(number)
    assert move(guest, host) == []
    assert [event.kind for event in move(host, guest)] == [RESET]
    guest.send(number, b"later still")
    assert guest.outgoing == 0


def test_a_credit_that_was_not_given_ends_the_stream() -> None:
    host, _, number = opened()
    with pytest.raises(ProtocolError, match="credit of 1 bytes"):
        list(host.receive_data(HEADER.pack(CREDIT, number, 1)))


def test_more_than_the_window_ends_the_stream() -> None:
    host, _, number = opened()
    frame = HEADER.pack(DATA, number, MAX_DATA) + bytes(MAX_DATA)
    with pytest.raises(ProtocolError, match="may not send"):
        list(host.receive_data(frame * (WINDOW // MAX_DATA + 1)))


@pytest.mark.parametrize(
    "frame",
    [
        HEADER.pack(OPEN, 7, 22),  # a guest opens nothing on its host
        HEADER.pack(0, 0, 0),
        HEADER.pack(99, 1, 0),
        HEADER.pack(DATA, 1, MAX_DATA + 1),
        HEADER.pack(ACCEPT, 5, 0),  # never opened
    ],
)
def test_what_the_protocol_does_not_permit_ends_the_stream(frame: bytes) -> None:
    host = Multiplexer(host=True)
    host.open(1024)
    with pytest.raises(ProtocolError):
        list(host.receive_data(frame))


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_refused(data: bytes) -> None:
    for host in (True, False):
        multiplexer = Multiplexer(host=host)
        try:
            for event in multiplexer.receive_data(data):
                assert event.kind in range(READY, RESET + 1)
        except ProtocolError:
            pass


NONCE = bytes(range(16))


def saved_in_use() -> tuple[Multiplexer, bytes]:
    """A guest with an open connection, and what it has sent that nobody has read."""
    _, guest, number = opened()
    guest.send(number, b"x" * 300)
    guest.consumed(number, CREDIT_STEP)
    guest.end(number)
    return guest, guest.data_to_send()


def test_a_new_host_takes_over_wherever_the_old_stream_was_cut() -> None:
    guest, unread = saved_in_use()
    for cut in range(len(unread) + 1):
        guest, unread = saved_in_use()
        host = Multiplexer(host=True, resume=NONCE)
        assert not host.resumed
        assert [event.kind for event in move(host, guest)] == [RESUME]
        answer = unread[cut:] + guest.data_to_send()
        for size in (1, 7, len(answer)):
            host = Multiplexer(host=True, resume=NONCE)
            events = [event for at in range(0, len(answer), size) for event in host.receive_data(answer[at : at + size])]
            assert [event.kind for event in events] == [READY]
            assert host.resumed
        host.data_to_send()
        number = host.open(1024)
        [event] = move(host, guest)
        assert (event.kind, event.connection) == (OPEN, number)
        guest.accept(number)
        guest.send(number, b"new")
        assert [event.data for event in move(guest, host)] == [b"", b"new"]


def test_the_guest_forgets_the_connections_of_the_old_host() -> None:
    _, guest, number = opened()
    guest.send(number, b"never sent")
    move(Multiplexer(host=True, resume=NONCE), guest)
    assert guest.room(number) == 0
    assert b"never sent" not in guest.data_to_send()
    guest.reset(number)
    guest.send(number, b"late")
    assert guest.outgoing == 0


def test_a_guest_can_be_taken_over_again() -> None:
    guest = Multiplexer(host=False)
    for round_ in range(3):
        host = Multiplexer(host=True, resume=bytes([round_]) * 16)
        move(host, guest)
        assert [event.kind for event in move(guest, host)] == [READY]
        host.open(1)
        assert [event.kind for event in move(host, guest)] == [OPEN]


@pytest.mark.parametrize("frame", [HEADER.pack(RESUME, 0, 3) + b"abc", HEADER.pack(RESUME, 0, MAX_DATA + 1)])
def test_a_wrong_nonce_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"nonce of 3 bytes|frame of"):
        list(Multiplexer(host=False).receive_data(frame))


def test_a_nonce_outside_of_its_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="not in its frame"):
        list(Multiplexer(host=True, resume=NONCE).receive_data(b"something" + NONCE))
    with pytest.raises(ProtocolError, match="not in its frame"):
        list(Multiplexer(host=True, resume=NONCE).receive_data(NONCE))


def test_resume_is_not_for_the_host() -> None:
    with pytest.raises(ProtocolError):
        list(Multiplexer(host=True).receive_data(HEADER.pack(RESUME, 0, 16) + NONCE))
