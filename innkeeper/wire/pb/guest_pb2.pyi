from innkeeper.wire.pb import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BootTimelineResponse(_message.Message):
    __slots__ = ("stages", "startup_modules", "resident_bytes", "threads", "orphans_reaped")
    class Stage(_message.Message):
        __slots__ = ("name", "boottime_ns")
        NAME_FIELD_NUMBER: _ClassVar[int]
        BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
        name: str
        boottime_ns: int
        def __init__(self, name: _Optional[str] = ..., boottime_ns: _Optional[int] = ...) -> None: ...
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STARTUP_MODULES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    ORPHANS_REAPED_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[BootTimelineResponse.Stage]
    startup_modules: _containers.RepeatedScalarFieldContainer[str]
    resident_bytes: int
    threads: int
    orphans_reaped: int
    def __init__(self, stages: _Optional[_Iterable[_Union[BootTimelineResponse.Stage, _Mapping[str, object]]]] = ..., startup_modules: _Optional[_Iterable[str]] = ..., resident_bytes: _Optional[int] = ..., threads: _Optional[int] = ..., orphans_reaped: _Optional[int] = ...) -> None: ...

class FeaturesResponse(_message.Message):
    __slots__ = ("features",)
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    features: bytes
    def __init__(self, features: _Optional[bytes] = ...) -> None: ...

class ListContainersResponse(_message.Message):
    __slots__ = ("containers",)
    class Container(_message.Message):
        __slots__ = ("id", "status", "pid", "exit_status", "created", "annotations")
        class AnnotationsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        ID_FIELD_NUMBER: _ClassVar[int]
        STATUS_FIELD_NUMBER: _ClassVar[int]
        PID_FIELD_NUMBER: _ClassVar[int]
        EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
        CREATED_FIELD_NUMBER: _ClassVar[int]
        ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
        id: str
        status: str
        pid: int
        exit_status: int
        created: float
        annotations: _containers.ScalarMap[str, str]
        def __init__(self, id: _Optional[str] = ..., status: _Optional[str] = ..., pid: _Optional[int] = ..., exit_status: _Optional[int] = ..., created: _Optional[float] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[ListContainersResponse.Container]
    def __init__(self, containers: _Optional[_Iterable[_Union[ListContainersResponse.Container, _Mapping[str, object]]]] = ...) -> None: ...

class ListProcessesRequest(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class ListProcessesResponse(_message.Message):
    __slots__ = ("processes",)
    class Process(_message.Message):
        __slots__ = ("pid", "parent_pid", "uid", "state", "cpu_time_ns", "resident_bytes", "started", "args", "exec_id")
        PID_FIELD_NUMBER: _ClassVar[int]
        PARENT_PID_FIELD_NUMBER: _ClassVar[int]
        UID_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        CPU_TIME_NS_FIELD_NUMBER: _ClassVar[int]
        RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
        STARTED_FIELD_NUMBER: _ClassVar[int]
        ARGS_FIELD_NUMBER: _ClassVar[int]
        EXEC_ID_FIELD_NUMBER: _ClassVar[int]
        pid: int
        parent_pid: int
        uid: int
        state: str
        cpu_time_ns: int
        resident_bytes: int
        started: float
        args: _containers.RepeatedScalarFieldContainer[str]
        exec_id: str
        def __init__(self, pid: _Optional[int] = ..., parent_pid: _Optional[int] = ..., uid: _Optional[int] = ..., state: _Optional[str] = ..., cpu_time_ns: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., started: _Optional[float] = ..., args: _Optional[_Iterable[str]] = ..., exec_id: _Optional[str] = ...) -> None: ...
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    processes: _containers.RepeatedCompositeFieldContainer[ListProcessesResponse.Process]
    def __init__(self, processes: _Optional[_Iterable[_Union[ListProcessesResponse.Process, _Mapping[str, object]]]] = ...) -> None: ...

class StartShellRequest(_message.Message):
    __slots__ = ("exec_id", "args", "env", "cwd", "terminal", "rows", "columns")
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    TERMINAL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    exec_id: str
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    terminal: bool
    rows: int
    columns: int
    def __init__(self, exec_id: _Optional[str] = ..., args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., terminal: _Optional[bool] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class ReleaseProcessRequest(_message.Message):
    __slots__ = ("container_id", "exec_id", "when_caller_goes")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    WHEN_CALLER_GOES_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    exec_id: str
    when_caller_goes: bool
    def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., when_caller_goes: _Optional[bool] = ...) -> None: ...

class RemoveFileRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class ClockResponse(_message.Message):
    __slots__ = ("realtime_ns",)
    REALTIME_NS_FIELD_NUMBER: _ClassVar[int]
    realtime_ns: int
    def __init__(self, realtime_ns: _Optional[int] = ...) -> None: ...

class PrepareTemplateRequest(_message.Message):
    __slots__ = ("used_blocks", "padding")
    USED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    used_blocks: int
    padding: bytes
    def __init__(self, used_blocks: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class ResumeCloneRequest(_message.Message):
    __slots__ = ("entropy", "realtime_ns", "generation", "hardware_addresses")
    class HardwareAddress(_message.Message):
        __slots__ = ("device", "address")
        DEVICE_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        device: str
        address: str
        def __init__(self, device: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    REALTIME_NS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    entropy: bytes
    realtime_ns: int
    generation: int
    hardware_addresses: _containers.RepeatedCompositeFieldContainer[ResumeCloneRequest.HardwareAddress]
    def __init__(self, entropy: _Optional[bytes] = ..., realtime_ns: _Optional[int] = ..., generation: _Optional[int] = ..., hardware_addresses: _Optional[_Iterable[_Union[ResumeCloneRequest.HardwareAddress, _Mapping[str, object]]]] = ...) -> None: ...

class ResumeCloneResponse(_message.Message):
    __slots__ = ("generation", "realtime_ns", "boot_id")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REALTIME_NS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    generation: int
    realtime_ns: int
    boot_id: str
    def __init__(self, generation: _Optional[int] = ..., realtime_ns: _Optional[int] = ..., boot_id: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "time", "kind", "container_id", "exec_id", "exit_status", "generation")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Event.Kind]
        CREATED: _ClassVar[Event.Kind]
        STARTED: _ClassVar[Event.Kind]
        EXITED: _ClassVar[Event.Kind]
        OOM: _ClassVar[Event.Kind]
        REMOVED: _ClassVar[Event.Kind]
        RESUMED: _ClassVar[Event.Kind]
    UNKNOWN: Event.Kind
    CREATED: Event.Kind
    STARTED: Event.Kind
    EXITED: Event.Kind
    OOM: Event.Kind
    REMOVED: Event.Kind
    RESUMED: Event.Kind
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    EXEC_ID_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: float
    kind: Event.Kind
    container_id: str
    exec_id: str
    exit_status: int
    generation: int
    def __init__(self, number: _Optional[int] = ..., time: _Optional[float] = ..., kind: _Optional[_Union[Event.Kind, str]] = ..., container_id: _Optional[str] = ..., exec_id: _Optional[str] = ..., exit_status: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class NextEventsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class NextEventsResponse(_message.Message):
    __slots__ = ("events", "last")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    last: int
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping[str, object]]]] = ..., last: _Optional[int] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("after",)
    AFTER_FIELD_NUMBER: _ClassVar[int]
    after: int
    def __init__(self, after: _Optional[int] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("process", "stdin", "close_stdin", "resize", "signal")
    class Process(_message.Message):
        __slots__ = ("container_id", "exec_id")
        CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
        EXEC_ID_FIELD_NUMBER: _ClassVar[int]
        container_id: str
        exec_id: str
        def __init__(self, container_id: _Optional[str] = ..., exec_id: _Optional[str] = ...) -> None: ...
    class Size(_message.Message):
        __slots__ = ("rows", "columns")
        ROWS_FIELD_NUMBER: _ClassVar[int]
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        rows: int
        columns: int
        def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STDIN_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    process: AttachRequest.Process
    stdin: bytes
    close_stdin: _empty_pb2.Empty
    resize: AttachRequest.Size
    signal: int
    def __init__(self, process: _Optional[_Union[AttachRequest.Process, _Mapping[str, object]]] = ..., stdin: _Optional[bytes] = ..., close_stdin: _Optional[_Union[_empty_pb2.Empty, _Mapping[str, object]]] = ..., resize: _Optional[_Union[AttachRequest.Size, _Mapping[str, object]]] = ..., signal: _Optional[int] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("stdout", "stderr", "refused", "exit_status")
    class Refusal(_message.Message):
        __slots__ = ("code", "message")
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        code: int
        message: str
        def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    EXIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    refused: AttachResponse.Refusal
    exit_status: int
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., refused: _Optional[_Union[AttachResponse.Refusal, _Mapping[str, object]]] = ..., exit_status: _Optional[int] = ...) -> None: ...

SERVICES: dict[str, dict[str, tuple[type[_message.Message], type[_message.Message]]]]
