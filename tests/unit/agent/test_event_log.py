"""Numbered events: kept for a while, waited for by any number of tasks."""

import pytest

from agent import event_log, loop
from agent.errors import Refused
from innkeeper.wire.pb.guest_pb2 import Event


def numbers(found: "list[event_log.Event]") -> list[int]:
    return [event.number for event in found]


def test_the_kinds_are_those_of_the_interface() -> None:
    assert {name: getattr(event_log, name) for name in Event.Kind.keys()} == dict(Event.Kind.items())  # noqa: SIM118 - an enumeration of protobuf's


def test_what_came_after_a_number() -> None:
    async def main() -> None:
        kept = event_log.Events()
        for number in range(5):
            kept.publish(event_log.EXITED, "box", "exec", number)
        assert numbers(await kept.after(0)) == [1, 2, 3, 4, 5]
        (last,) = await kept.after(4)
        assert (last.kind, last.container_id, last.exec_id, last.exit_status) == (event_log.EXITED, "box", "exec", 4)
        with pytest.raises(Refused, match="after: 6 is beyond the latest event, 5"):
            await kept.after(6)

    loop.run(main())


def test_everybody_who_waits_gets_it() -> None:
    async def main() -> None:
        kept = event_log.Events()
        waiting = [loop.spawn(kept.after(0), name="follower") for _ in range(3)]
        await loop.sleep(0)
        kept.publish(event_log.CREATED, "box")
        kept.publish(event_log.STARTED, "box")
        for task in waiting:
            assert numbers(await task.wait()) == [1, 2]

    loop.run(main())


def test_only_the_last_are_kept() -> None:
    async def main() -> None:
        kept = event_log.Events()
        for _ in range(event_log.KEPT + 10):
            kept.publish(event_log.OOM, "box")
        found = numbers(await kept.after(0))
        assert (found[0], found[-1], len(found)) == (11, event_log.KEPT + 10, event_log.KEPT)
        assert numbers(await kept.after(event_log.KEPT + 8)) == [event_log.KEPT + 9, event_log.KEPT + 10]

    loop.run(main())
