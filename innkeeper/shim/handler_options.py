"""The options of a runtime handler in containerd's configuration: our configuration file."""

from google.protobuf.message import DecodeError

from innkeeper.shim.pb import containerd_pb2 as pb

TYPE = "runtimeoptions.v1.Options"
VARIABLE = "INNKEEPER_SHIM_CONFIG"
"""The environment's name of the configuration file, for what is created without options."""


def config_path(options: pb.Any) -> str:
    """Return the configuration file that a runtime handler names, or "".

    Options of other types are not for us.
    """
    if options.type_url.rpartition("/")[2] != TYPE:
        return ""
    return str(pb.Options.FromString(options.value).config_path)


def config_path_at_start(data: bytes, params: pb.BootstrapParams | None) -> str:
    """Return the same from the standard input of `start`.

    It has the parameters, or in earlier versions the options alone. A sandbox is created without
    them.
    """
    try:
        found = [extension.value for extension in params.extensions] if params else [pb.Any.FromString(data)]
        return next((path for options in found if (path := config_path(options))), "")
    except DecodeError:
        return ""
