"""What a payload printed: one JSON object a line, see tests/payload/payload.h."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One thing tried: `answer` is "ok" or an errno's name, `value` what was seen."""

    attempt: str
    on: str
    answer: str
    value: str


class Report:
    """All answers of one run, and how the program ended."""

    def __init__(self, output: bytes, errors: bytes, status: int) -> None:
        self.answers = parse(output)
        self.errors = errors.decode(errors="replace")
        self.status = status

    def of(self, attempt: str) -> dict[str, str]:
        """Object -> answer, of one kind of attempt. Raises KeyError where nothing of the kind was tried: no test may pass by silence."""
        found = {answer.on: answer.answer for answer in self.answers if answer.attempt == attempt}
        if not found:
            raise KeyError(f"no {attempt!r} in {self}")
        return found

    def values(self, attempt: str) -> dict[str, str]:
        """Return object -> what was seen there."""
        return {answer.on: answer.value for answer in self.answers if answer.attempt == attempt}

    def all(self, attempt: str) -> list[Answer]:
        """Every answer of one kind, in order; may be empty."""
        return [answer for answer in self.answers if answer.attempt == attempt]

    def __repr__(self) -> str:
        lines = [f"{answer.attempt} {answer.on}: {answer.answer} {answer.value}" for answer in self.answers]
        return f"status {self.status}, standard error {self.errors!r}, answers:\n" + "\n".join(lines)


def parse(output: bytes) -> list[Answer]:
    """The lines of a payload. A line that is none of its own fails the test."""
    answers = []
    for line in output.splitlines():
        entry = json.loads(line)
        answers.append(Answer(entry["try"], entry["on"], entry["answer"], entry["value"]))
    return answers
