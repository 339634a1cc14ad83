"""swapoff of several devices."""

import pytest

from agent.linux import swap


def test_one_that_fails_keeps_none_of_the_others_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def call(name: str, *arguments: object, path: str) -> int:
        asked.append(path)
        if path != "/dev/vdc":
            raise OSError(12, name, path)
        return 0

    monkeypatch.setattr(swap, "call", call)
    with pytest.raises(OSError) as caught:
        swap.swapoff("/dev/vdb", "/dev/vdc", "/dev/vdd")
    assert (asked, caught.value.filename) == (["/dev/vdb", "/dev/vdc", "/dev/vdd"], "/dev/vdb")
