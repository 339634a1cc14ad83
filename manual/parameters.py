"""The page of the agent's settings, generated from the table by which the agent reads them."""

from agent import config
from manual.pages import HEAD, escape, table

INTRO = """# Boot parameters

The agent reads its settings from words on the guest's kernel command line, or from a TOML file that
`agent.config_file=PATH` names there. A malformed value is logged and the default stays. An
environment variable, where there is one, overrides both.
"""
KINDS = {
    "_address": "`vsock://CID:PORT` (CID -1: any) or `unix:///PATH`",
    "_grpc_address": "an address as above, or `none`",
    "_level": "a log level",
    "_seconds": "whole seconds, at least 1",
    "_size": "bytes",
    "_port": "a vsock port, at least 1",
    "_flag": "`true`, `false`, `1` or `0`; the word alone means true",
    "_path": "an absolute path",
}
"""Maps the name of a parser to the values that it accepts."""


def page() -> str:
    """Return the text of the page."""
    variables = {name: variable for variable, name in config.VARIABLES.items()}
    rows = []
    for option in config.OPTIONS:
        variable = variables.get(option.name, "")
        rows.append(
            (
                f"`{option.word}`",
                f"`{option.key}`",
                f"`{variable}`" if variable else "",
                KINDS[option.parse.__name__],
                _default(option.default),
            )
        )
    ignored = [(f"`{word}`", escape(why)) for word, why in config.WITHOUT_EFFECT.items()]
    ignored.append((f"`{config.PREFIX_OF_MEM_AGENT}*`", config.NO_MEM_AGENT))
    return "\n".join(
        [
            HEAD,
            INTRO,
            table(("word", "key in TOML", "environment", "value", "default"), rows),
            "## Words without effect\n",
            "Kata's configuration writes these; the agent accepts them and warns when they ask for something it does not do.\n",
            table(("word", "why"), ignored),
        ]
    )


def _default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value else "none"
