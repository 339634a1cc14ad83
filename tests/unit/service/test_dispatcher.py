"""From a request to its handler: before and after the rest of the agent is there, errors to statuses, deadlines."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import errors, loop
from agent.loop import Cancelled, Event, run, sleep, spawn
from agent.service import methods as service_methods
from agent.service.dispatcher import Dispatcher
from agent.service.methods import Methods
from agent.service.server import Answer
from innkeeper.wire import error_info, status
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import agent_pb2, empty_pb2

AGENT = "grpc.AgentService"
SANDBOX = SimpleNamespace(check_policy=lambda *request: None)


def methods(**handlers: Any) -> Methods:
    """The table with these handlers in place of the real ones."""
    made = Methods(cast("Any", SANDBOX))
    made._table.clear()
    made._add(AGENT, handlers)
    return made


def loaded(**handlers: Any) -> Dispatcher:
    dispatcher = Dispatcher()
    dispatcher.methods = methods(**handlers)
    dispatcher.loaded.set()
    return dispatcher


async def answered(answer: Answer) -> Response:
    if answer.response is not None:
        return answer.response
    assert answer.call is not None
    return await answer.call()


def respond(dispatcher: Dispatcher, request: Request) -> Response:
    async def main() -> Response:
        return await answered(dispatcher.answer(request))

    return run(main())


async def empty(sandbox: object, request: object) -> empty_pb2.Empty:
    return empty_pb2.Empty()


# before the rest is loaded


def test_health_is_answered_at_once() -> None:
    async def main() -> None:
        dispatcher = Dispatcher()
        version = dispatcher.answer(Request("grpc.Health", "Version"))
        assert version.response is not None
        assert version.response.payload == b"\x0a\x050.0.1\x12\x054.1.0"
        assert not dispatcher.checked.is_set
        check = dispatcher.answer(Request("grpc.Health", "Check", b"whatever"))
        assert check.response is not None
        assert (check.response.code, check.response.payload) == (status.OK, b"\x08\x01")
        assert dispatcher.checked.is_set

    run(main())


@pytest.mark.parametrize(
    ("service", "method", "code"),
    [(AGENT, "DestroySandbox", status.OK), (AGENT, "Nothing", status.UNIMPLEMENTED), ("grpc.Health", "Nothing", status.UNIMPLEMENTED)],
)
def test_other_calls_wait_until_it_is_there(service: str, method: str, code: int) -> None:
    async def main() -> None:
        dispatcher = Dispatcher()
        answer = dispatcher.answer(Request(service, method))
        assert answer.response is None
        assert dispatcher.checked.is_set, "the call is the sign to load the rest"
        task = spawn(answered(answer), name="call")
        await sleep(0.002)
        assert not task.done
        dispatcher.methods = methods(DestroySandbox=empty)
        await sleep(0.002)
        assert not task.done, "loaded is said last"
        dispatcher.loaded.set()
        assert (await task.wait()).code == code

    run(main())


def test_a_deadline_holds_before_the_rest_is_loaded() -> None:
    response = respond(Dispatcher(), Request(AGENT, "DestroySandbox", timeout_nano=1_000_000))
    assert (response.code, response.message) == (status.DEADLINE_EXCEEDED, "timeout")


@pytest.mark.parametrize("method", ["ReadStdout", "ReadStderr", "WaitProcess", "GetOOMEvent"])
def test_calls_that_only_wait_are_given_up_with_their_client(method: str) -> None:
    assert Dispatcher().answer(Request(AGENT, method)).abandon
    assert loaded(**{method: empty}).answer(Request(AGENT, method)).abandon


@pytest.mark.parametrize("method", ["CreateContainer", "WriteStdin", "RemoveContainer", "DestroySandbox"])
def test_calls_that_change_something_run_to_their_end(method: str) -> None:
    assert not Dispatcher().answer(Request(AGENT, method)).abandon
    assert not loaded(**{method: empty}).answer(Request(AGENT, method)).abandon


def test_unknown_methods_take_no_task_once_loaded() -> None:
    response = loaded().answer(Request("a.Service", "Method")).response
    assert response is not None
    assert (response.code, response.message) == (status.UNIMPLEMENTED, "/a.Service/Method is not supported")


# handlers


def test_a_handler_gets_the_sandbox_and_its_message() -> None:
    seen: list[object] = []

    async def wait_process(sandbox: object, request: agent_pb2.WaitProcessRequest) -> agent_pb2.WaitProcessResponse:
        seen.extend([sandbox, type(request), request.container_id])
        return agent_pb2.WaitProcessResponse(status=7)

    payload = agent_pb2.WaitProcessRequest(container_id="c").SerializeToString()
    response = respond(loaded(WaitProcess=wait_process), Request(AGENT, "WaitProcess", payload))
    assert (response.code, response.payload) == (status.OK, b"\x08\x07")
    assert seen == [SANDBOX, agent_pb2.WaitProcessRequest, "c"]


def test_an_undecodable_message_never_reaches_the_handler() -> None:
    async def never(sandbox: object, request: object) -> object:
        raise AssertionError("called")

    response = respond(loaded(WaitProcess=never), Request(AGENT, "WaitProcess", b"\x0a\x05ab"))
    assert response.code == status.INVALID_ARGUMENT
    assert response.message.startswith("WaitProcess: undecodable request: ")
    assert response.payload == b""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.Refused("process.cwd", "not absolute"), status.INVALID_ARGUMENT, "process.cwd: not absolute"),
        (errors.NotFound("container 'c' not found"), status.NOT_FOUND, "container 'c' not found"),
        (errors.AlreadyExists("exists"), status.ALREADY_EXISTS, "exists"),
        (errors.WrongState("stopped"), status.FAILED_PRECONDITION, "stopped"),
        (errors.Unimplemented("no"), status.UNIMPLEMENTED, "no"),
        (errors.StepFailed("mount", "EBUSY", 16), status.INTERNAL, "mount: EBUSY"),
        (errors.AgentError("Spec does not contain linux field"), status.INTERNAL, "Spec does not contain linux field"),
        (FileNotFoundError(2, "No such file", "/x"), status.INTERNAL, "WaitProcess: [Errno 2] No such file: '/x'"),
        (loop.QueueClosed(), status.INTERNAL, "WaitProcess: QueueClosed: "),
        (ValueError("odd"), status.INTERNAL, "WaitProcess: ValueError: odd"),
        (RecursionError("deep"), status.INTERNAL, "WaitProcess: RecursionError: deep"),
    ],
)
def test_what_a_handler_raises_becomes_a_status(error: Exception, code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def fail(sandbox: object, request: object) -> object:
        raise error

    response = respond(loaded(WaitProcess=fail), Request(AGENT, "WaitProcess"))
    assert (response.code, response.message, response.payload) == (code, message, b"")
    unexpected = not isinstance(error, errors.AgentError | OSError)
    assert ("Traceback" in capfd.readouterr().err) is unexpected


@pytest.mark.parametrize(
    ("error", "reason", "metadata"),
    [
        (errors.StepFailed("find program", "x: not found", 2), "STEP_FAILED", {"step": "find program", "errno": "ENOENT"}),
        (errors.StepFailed("contain", "odd record"), "STEP_FAILED", {"step": "contain"}),
        (errors.StepFailed("mount", "who knows", 9999), "STEP_FAILED", {"step": "mount", "errno": "9999"}),
        (errors.Refused("process.cwd", "not absolute"), "REFUSED", {"field": "process.cwd"}),
        (errors.NotFound("gone"), "", {}),
    ],
)
def test_a_status_says_to_programs_what_its_message_says(error: Exception, reason: str, metadata: dict[str, str]) -> None:
    async def handler(sandbox: object, request: object) -> Any:
        raise error

    answer = respond(loaded(PauseContainer=handler), Request(AGENT, "PauseContainer"))
    assert error_info.decode(Response.decode(answer.encode()).details) == (reason, metadata)


def test_a_deadline_ends_the_handler_where_it_waits() -> None:
    seen: list[str] = []

    async def slow(sandbox: object, request: object) -> object:
        try:
            await Event().wait()
        except Cancelled:
            seen.append("cancelled")
            raise
        return None

    response = respond(loaded(WaitProcess=slow), Request(AGENT, "WaitProcess", timeout_nano=2_000_000))
    assert (response.code, response.message) == (status.DEADLINE_EXCEEDED, "timeout")
    assert seen == ["cancelled"]


@pytest.mark.parametrize("nano", [0, -1, -(1 << 63), (1 << 63) - 1])
def test_deadlines_that_are_none(nano: int) -> None:
    async def slow(sandbox: object, request: object) -> empty_pb2.Empty:
        await sleep(0.003)
        return empty_pb2.Empty()

    assert respond(loaded(DestroySandbox=slow), Request(AGENT, "DestroySandbox", timeout_nano=nano)).code == status.OK


def test_a_time_limit_of_the_handlers_own_is_the_same_status() -> None:
    """RemoveContainer has one among its fields."""

    async def slow(sandbox: object, request: object) -> object:
        with loop.timeout(0.001):
            await Event().wait()
        return None

    assert respond(loaded(WaitProcess=slow), Request(AGENT, "WaitProcess")).code == status.DEADLINE_EXCEEDED


def test_every_handler_belongs_to_a_method_of_the_interface() -> None:
    assert set(service_methods.AGENT_SERVICE) <= set(agent_pb2.SERVICES[AGENT])
