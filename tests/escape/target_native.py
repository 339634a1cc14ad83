"""An agent beside this machine's processes, in namespaces of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.linux.capability import NAMES, capget
from innkeeper.client import Agent, Client, connect
from tests.escape.report import Answer, parse
from tests.escape.target import FACTS, PATIENCE, Target
from tests.eventually import eventually, retry

READ_ONLY = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", 'mount --bind "$0" "$0"; mount -o remount,bind,ro /; exec "$@"')


class Native(Target):
    """The agent as an ordinary process in namespaces of its own."""

    name = "native"

    def __init__(self, outside: Path, payload: Path, read_only: bool = False) -> None:
        """`read_only`: this machine's files are, but for those below `outside`."""
        super().__init__(outside, str(outside), payload)
        held = capget()[1]
        self.lacking = frozenset([name for number, name in enumerate(NAMES) if not held >> number & 1])
        self.address = f"unix://{outside}/agent.sock"
        self._log = outside / "agent.log"
        variables = {"KATA_AGENT_SERVER_ADDR": self.address, "KATA_AGENT_LOG_LEVEL": "info"}
        command = [sys.executable, "-m", "agent"]
        if read_only:
            command = [*READ_ONLY, str(outside), *command]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **variables})
        self.client = self._connect()
        self.agent = Agent(self.client)
        self.agent.check(PATIENCE)
        self.pid = int(_children(self._process.pid)[0])
        self.group = _cgroup2() / f"innkeeper-agent-{self._process.pid}"

    def _connect(self) -> Client:
        def alive() -> None:
            assert self._process.poll() is None, self.log()  # it ended before it had a socket

        return retry(lambda: connect(self.address, PATIENCE), FileNotFoundError, alive)

    def look(self) -> list[Answer]:
        state = f"/proc/{self.pid}/root/run"
        command: list[str | Path] = [self.payload, "observe", f"/proc/{self.pid}", self.group, state, "+", "read", *FACTS]
        return parse(subprocess.run(command, capture_output=True, check=True).stdout)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End the agent, which must not have ended before."""
        assert self._process.poll() is None, self.log()
        self.client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        eventually(lambda: not self.group.exists(), f"{self.group} is left", PATIENCE)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _cgroup2() -> Path:
    return next(Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2")
