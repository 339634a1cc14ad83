"""The messages of the host's side, read from the source: what a user may see when something fails.

python -m tests.unit.tree.messages      write the list into messages.txt
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

FOLDERS = ("build.py", "innkeeper", "bench")
LIST = Path(__file__).with_name("messages.txt")
CALLS = {
    **dict.fromkeys(("InnkeeperError", "BuildahError", "PortError", "QmpError", "PoolBusy", "UsageError", "with_console", "warn"), 0),
    **dict.fromkeys(("not_found", "already_exists", "wrong_state", "unimplemented"), 0),
    "CallError": 1,
}
"""What is called with a message, and as which argument: exceptions, functions that return one, and warnings."""
ARROW = " -> "
HEAD = """\
# Every message of the host's side that a user may see, then after " -> " the hint, if it has one.
# Written by `python -m tests.unit.tree.messages`. {...} is filled in when it happens.
"""


def lines() -> list[str]:
    """Return the list's lines, sorted: a message that moves to another file leaves them as they are."""
    paths = [path for part in FOLDERS for path in ([ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py")))]
    return sorted({line for path in paths for line in _messages(ast.parse(path.read_text()))})


def _messages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        given = node.args[CALLS.get(_name(node.func), len(node.args)) :] if isinstance(node, ast.Call) else []
        if isinstance(node, ast.Call) and given and not isinstance(given[0], ast.Name):
            hints = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
            hint = text(_assigned(tree, hints[0])) if hints else ""
            yield (text(given[0]) + (f"{ARROW}{hint}" if hint else "")).replace("\n", "\\n")


def _assigned(tree: ast.Module, node: ast.expr) -> ast.expr:
    """Return what a variable was assigned last, above its use; other expressions as they are."""
    if not isinstance(node, ast.Name):
        return node
    above = [made for made in ast.walk(tree) if isinstance(made, ast.Assign) and made.lineno < node.lineno]
    found = [made for made in above if _name(made.targets[0]) == node.id]
    return max(found, key=lambda made: made.lineno).value if found else node


def text(node: ast.expr) -> str:
    """Return the text of an expression, with what is only known at run time in braces."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(text, node.values))
        case ast.FormattedValue():
            return f"{{{_name(node.value)}}}"
        case ast.BinOp(op=ast.Add()):
            return text(node.left) + text(node.right)
        case _:
            return f"{{{_name(node)}}}"


def _name(node: ast.expr) -> str:
    """Return a short name of an expression: of `error.strerror` the last word, of a call the function's."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Call(func=ast.Attribute(attr="join" | "strip", value=value), args=arguments):
            return _name(arguments[0] if arguments else value)
        case ast.Call():
            return _name(node.func)
        case ast.Subscript():
            return _name(node.value)
        case _:
            return "..."


if __name__ == "__main__":
    LIST.write_text(HEAD + "".join(f"{line}\n" for line in lines()))
