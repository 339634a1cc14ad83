"""The log gives back what was written, bytes and order."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from innkeeper.engine import logfile


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=50))))
def test_streams_come_back_exactly(pieces: list[tuple[str, bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        log = logfile.LogWriter(path)
        for stream, data in pieces:
            log.stream(stream)(data)
        log.close()
        assert [(entry["stream"], logfile.payload(entry)) for entry in logfile.entries(path)] == pieces


def test_a_line_is_json_with_time_and_stream(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = logfile.LogWriter(path)
    log.stream("stdout")("grüß\n".encode())
    log.stream("stderr")(b"\xff")
    log.close()
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["stream"], first["data"], first["time"][-1]) == ("stdout", "grüß\n", "Z")
    assert (second["stream"], second["base64"], "data" in second) == ("stderr", "/w==", False)


def test_following_ends_after_what_came_last(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = logfile.LogWriter(path)
    alive = iter([True, True, False])

    def still() -> bool:
        log.stream("stdout")(b"x")
        return next(alive)

    assert b"".join(map(logfile.payload, logfile.entries(path, still))) == b"xxx"
    log.close()
