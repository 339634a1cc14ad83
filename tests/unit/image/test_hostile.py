"""Layers and archives that someone wrote to do harm: each is read, or refused with a reason, in bounded memory and in an end."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper import progress
from innkeeper.errors import InnkeeperError
from innkeeper.image.archive import peek_config
from innkeeper.image.erofs import write_erofs
from innkeeper.image.layer import read_layer
from innkeeper.image.tar import HEADER_MAX
from innkeeper.image.tree import new_directory

BLOCK = 512
END = bytes(2 * BLOCK)
DEADLINE = 60  # seconds, for what takes milliseconds


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """A reader that goes round for ever fails its test, and not the whole run."""

    def over(_signum: int, _frame: object) -> None:
        raise AssertionError("not read in time")

    old = signal.signal(signal.SIGALRM, over)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def header(
    name: str, kind: bytes = b"0", size: int | bytes = 0, magic: bytes = b"ustar\x0000", at: dict[int, bytes] | None = None
) -> bytes:
    """One ustar header; `size` may be the field's 12 bytes, `at` replaces bytes by offset."""
    block = bytearray(BLOCK)
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    fields = {0: name.encode(), 100: b"0000644\0" + b"0000000\0" * 2 + field + b"00000000000\0", 156: kind, 257: magic, **(at or {})}
    for offset, data in fields.items():
        block[offset : offset + len(data)] = data
    return with_checksum(bytes(block))


def with_checksum(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def negative(number: int) -> bytes:
    """A number below zero as GNU tar writes it."""
    return b"\xff" + (256**11 - number).to_bytes(11, "big")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def record(key: str, value: str) -> bytes:
    """One pax record."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def pax(**records: str) -> bytes:
    data = b"".join(record(key.replace("__", "."), value) for key, value in records.items())
    return header("pax", b"x", len(data)) + padded(data)


FILE = header("f", size=BLOCK) + b"a" * BLOCK
HOSTILE = {
    "a size below zero": header("a") + header("f", size=negative(2 * BLOCK)),
    "a size below zero, first": header("f", size=negative(2 * BLOCK)),
    "a long name below zero": header("a") + header("f", b"L", negative(BLOCK)),
    "records below zero": header("a") + header("f", b"x", negative(BLOCK)),
    "a size below zero in records": pax(size="-2048") + header("f"),
    "a size back to this header": header("a") + pax(size="-512") + header("f"),
    "a long name that is too long": header("f", b"L", HEADER_MAX + 1),
    "records that are too long": header("f", b"x", HEADER_MAX + 1),
    "records for all that are too long": header("f", b"g", HEADER_MAX + 1),
    "long names of long names": (header("f", b"L", 4) + padded(b"abc\0")) * 5000 + FILE,
    "records of records": (header("f", b"x", 12) + padded(b"12 path=abc\n")) * 5000 + FILE,
    "a time without end": pax(mtime="inf") + pax(path="x") + FILE,
    "a sparse map of words": pax(GNU__sparse__map="x,y", GNU__sparse__size="10") + FILE,
    "a sparse size of words": pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="ten") + FILE,
    "a sparse map in data of words": pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="10") + FILE,
    "a sparse map in no data": pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="10") + header("f"),
    "a sparse size below zero": pax(GNU__sparse__map="0,3", GNU__sparse__size="-10") + FILE,
    "a part beyond the size": pax(GNU__sparse__map="0,300", GNU__sparse__size="10") + FILE,
    "parts below zero": pax(GNU__sparse__map="-5,300,-400,-100", GNU__sparse__size="100") + FILE,
    "parts that overlap": pax(GNU__sparse__map="0,10,5,10", GNU__sparse__size="100") + FILE,
}


def convert(folder: Path, data: bytes) -> None:
    layer, device = folder / "layer.tar", folder / "image.erofs"
    layer.write_bytes(data)
    device.unlink(missing_ok=True)
    write_erofs(read_layer(layer, new_directory()), device, bytes(16))


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_refused_as_a_layer(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InnkeeperError, match=r"layer layer\.tar: "):
        convert(tmp_path, data + END)


def test_an_archive_that_ends_inside_a_sparse_map(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match=r"layer layer\.tar: "):
        convert(tmp_path, header("f", b"S", BLOCK, b"ustar  \0", {482: b"\1", 483: b"00000000010\0"}))


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_is_left_to_skopeo(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(data + END)
    assert peek_config(f"oci-archive:{tmp_path}/image.tar") is None


@pytest.mark.parametrize("index", [b"[]", b'{"manifests": [5]}', b'{"manifests": 5}', b"[" * 5000, b'{"manifests": [{"digest": 5}]}'])
def test_an_odd_index_is_left_to_skopeo(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "image.tar").write_bytes(header("index.json", size=len(index)) + padded(index) + END)
    assert peek_config(f"oci-archive:{tmp_path}/image.tar") is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*HOSTILE.values(), FILE, pax(path="etc/passwd")]).filter(lambda data: len(data) < 10 * BLOCK), max_size=3),
    st.lists(st.tuples(st.integers(0, 9 * BLOCK), st.sampled_from(b"\0\xff-0179/=,\nx")), max_size=6),
)
def test_damage_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], damage: list[tuple[int, int]]) -> None:
    data = bytearray(b"".join(parts) + END)
    for place, value in damage:
        data[place % len(data)] = value
    for place in range(0, len(data), BLOCK):
        if data[place + 257 : place + 262] == b"ustar":
            data[place : place + BLOCK] = with_checksum(bytes(data[place : place + BLOCK]))
    try:
        convert(tmp_path_factory.mktemp("damage"), bytes(data))
    except InnkeeperError as error:
        assert error.message  # said in words; any other exception fails the test


def test_an_attribute_with_a_nul_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(tmp_path, pax(**{"SCHILY__xattr__user__a\0b": "v"}) + FILE + END)
    assert "left out" in capfd.readouterr().err


def test_names_do_not_steer_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(tmp_path, pax(**{"SCHILY__xattr__com__x\x1b[2J": "v"}) + header("f\x1b]0;title\a") + END)
    progress.note("\x9b2J\udcff\u202e\tä 日本\n")
    told = capfd.readouterr().err
    assert all(character.isprintable() or character in "\t\n" for character in told)
    assert r"\x1b[2J" in told and r"\x1b]0;title\x07" in told and "\\x9b2J\\udcff\\u202e\tä 日本" in told
