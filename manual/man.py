"""Turn the reference pages into man pages.

Only the standard library is used, because setup.py calls this module while a wheel is built.
"""

import re
from pathlib import Path

PAGES = ("innkeeper.md", "innkeeper-oci.md")
DATE = "2026"


def write(reference: Path, into: Path) -> list[Path]:
    """Write a man page for each command of the pages in `reference`; return their paths, sorted."""
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for page in PAGES:
        for name, body in _sections((reference / page).read_text()):
            path = into / f"{name.replace(' ', '-')}.1"
            path.write_text(man_page(name, body))
            written.append(path)
    return sorted(written)


def _sections(text: str) -> list[tuple[str, str]]:
    pieces = re.split(r"^## (.+)\n", text, flags=re.M)
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def man_page(name: str, body: str) -> str:
    """Return a man page in roff, made from the Markdown below a command's heading."""
    dashed = name.replace(" ", "-")
    usage, rest = _fence(body)
    paragraphs = [part.strip() for part in rest.split("\n\n") if part.strip() and not part.startswith("<!--")]
    summary = paragraphs[0].splitlines()[0].split(". ")[0].rstrip(".")
    lines = [f'.TH "{dashed.upper()}" "1" "{DATE}" "Innkeeper"', ".SH NAME", f"{_text(dashed)} \\- {_text(summary)}"]
    lines += [".SH SYNOPSIS", _text(usage.strip()), ".SH DESCRIPTION"]
    for part in paragraphs:
        lines += _table(part) if part.startswith("|") else [".PP", *map(_line, part.splitlines())]
    examples = re.findall(r"```console\n(.*?)```", rest, re.S)
    text = "\n".join(lines)
    text = re.sub(r"\n\.PP\nExamples:(\n.*)*", "", text)
    for block in examples:
        text += "\n.SH EXAMPLES\n.nf\n" + "\n".join(map(_line, block.splitlines())) + "\n.fi"
    return text + "\n"


def _fence(body: str) -> tuple[str, str]:
    match = re.search(r"```text\n(.*?)```\n", body, re.S)
    assert match is not None, "each command of a reference page has its usage in a fenced block"
    return match[1], body[match.end() :]


def _table(part: str) -> list[str]:
    heading, _, *rows = part.splitlines()
    lines = [f".SH {'OPTIONS' if 'option' in heading else 'ARGUMENTS'}"]
    for row in rows:
        left, right = (cell.strip().replace("\0", "|") for cell in row.replace("\\|", "\0").strip("|").split("|"))
        lines += [".TP", f"\\fB{_text(left.strip('`'))}\\fR", _line(_plain(right)) if right else ""]
    return [line for line in lines if line]


def _plain(text: str) -> str:
    return text.replace("&lt;", "<").replace(r"\*", "*").replace(r"\[", "[")


def _text(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")


def _line(text: str) -> str:
    """Return a line of text, escaped so that roff does not take its start for a request."""
    escaped = _text(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
