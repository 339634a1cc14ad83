"""Detecting signals that the kernel would drop for the first process of a pid namespace."""

RT_SIGTIMEDWAIT = (["128"], ["137"])
"""The first field of /proc/PID/syscall during rt_sigtimedwait(2), on x86-64 and aarch64."""


def would_drop(pid: int, signum: int) -> bool:
    """Return whether the kernel would drop a signal for a process (proc_pid_status(5)).

    This is so if the process is the first of its pid namespace and neither blocks, ignores nor
    catches the signal. While a process sleeps in sigtimedwait(2), as the init of `run --init` does,
    the kernel shows the signals it waits for as not blocked. For a process found in that call the
    answer is therefore False.
    """
    try:
        with open(f"/proc/{pid}/syscall", encoding="utf-8") as file:
            if file.read().split()[:1] in RT_SIGTIMEDWAIT:
                return False
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file)
    except (FileNotFoundError, ProcessLookupError):
        return False
    if fields["NSpid"].split()[-1] != "1":
        return False
    return not any(int(fields[name], 16) >> (signum - 1) & 1 for name in ("SigBlk", "SigIgn", "SigCgt"))
