"""Where PID 1 listens, once it has read its command line."""

import socket
from pathlib import Path

import pytest

from agent import bootstrap
from agent.config import Config
from agent.loop import readable, run
from agent.loop.task import running_loop
from agent.service.dispatcher import Dispatcher
from tests.contract.agent_process import CHECK_ANSWER
from tests.contract.wire_helpers import request_frame

FIRST = "vsock://-1:1024"


def settings(address: str) -> Config:
    made = Config()
    made.server_addr = address
    return made


def test_an_address_of_the_command_line_is_served_too(tmp_path: Path) -> None:
    async def main() -> bytes:
        bootstrap.listen_on_configured(settings(f"unix://{tmp_path}/s"), FIRST, Dispatcher())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(f"{tmp_path}/s")
            client.send(request_frame(1))
            await readable(client.fileno())
            return client.recv(100)

    assert run(main()) == CHECK_ANSWER


def test_the_address_it_has_is_not_taken_twice() -> None:
    async def main() -> int:
        bootstrap.listen_on_configured(settings(FIRST), FIRST, Dispatcher())
        return len(running_loop().tasks)

    assert run(main()) == 1


def test_an_address_that_cannot_be_had_is_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        bootstrap.listen_on_configured(settings(f"unix://{tmp_path}/none/s"), FIRST, Dispatcher())

    run(main())
    assert f"the agent listens on {FIRST} only" in capfd.readouterr().err
