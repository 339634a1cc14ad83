"""The steps of a build with their times, as a trace for Chrome's tracing page and Perfetto."""

import json
import os
from pathlib import Path

from innkeeper import files, progress


def write(file: Path) -> None:
    """Write the steps of this process that ended.

    Times are in microseconds since the first one began.
    """
    steps = progress.finished()
    begin = min((start for _, start, _, _, _ in steps), default=0.0)
    events = [
        {
            "name": title,
            "ph": "X",
            "ts": round((start - begin) * 1e6),
            "dur": round(duration * 1e6),
            "pid": os.getpid(),
            "tid": thread,
            "args": {"failed": failed},
        }
        for title, start, duration, thread, failed in sorted(steps, key=lambda step: step[1])
    ]
    with files.replaced(file) as fresh:
        fresh.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n")
        fresh.chmod(0o644)
