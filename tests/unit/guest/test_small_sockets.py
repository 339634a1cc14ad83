"""The guest's small `socket` and `signal`: what PID 1 takes from them is there, with the values of the standard library, their oracle."""

import ast
import importlib.util
import os
import signal
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.unit.tree.test_imports import PID1, STANDARD


def _small(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"small_{name}", STANDARD / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = {"socket": _small("socket"), "signal": _small("signal")}
ORIGINAL = {"socket": socket, "signal": signal}


def _used(name: str) -> Iterator[str]:
    """The names that PID 1's modules take from a module: as its attributes, or by `from`."""
    for module, _ in PID1:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin) as file:
            tree = ast.parse(file.read())
        imported = any(isinstance(node, ast.Import) and any(item.name == name for item in node.names) for node in ast.walk(tree))
        for node in ast.walk(tree):
            if imported and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
                yield node.attr
            elif isinstance(node, ast.ImportFrom) and node.module == name:
                yield from (item.name for item in node.names)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_used_is_there(name: str) -> None:
    used = sorted(set(_used(name)))
    assert len(used) > 5
    for wanted in used:
        ours, theirs = getattr(SMALL[name], wanted), getattr(ORIGINAL[name], wanted)
        assert type(ours) is int and ours == theirs if isinstance(theirs, int) else callable(ours), wanted


def test_pairs_accept_and_descriptors() -> None:
    small = SMALL["socket"]
    with small.socket(small.AF_UNIX, small.SOCK_STREAM) as listener:
        listener.bind(f"\0innkeeper-small-sockets-{os.getpid()}")
        listener.listen()
        with small.socket(small.AF_UNIX) as client:
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server, client.dup() as again:
                again.sendall(b"one")
                assert server.recv(8) == b"one"
                assert not server.get_inheritable()
    assert listener.fileno() == client.fileno() == -1
    near, far = small.socketpair(small.AF_UNIX, small.SOCK_SEQPACKET)
    with near, far:
        small.send_fds(near, [b"x"], [near.fileno()])
        data, fds, _, _ = small.recv_fds(far, 16, 4)
        assert data == b"x"
        assert os.path.sameopenfile(fds[0], near.fileno())
        os.close(fds[0])
