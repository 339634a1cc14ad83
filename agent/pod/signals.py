"""Signals that the kernel would not deliver to the first process of a pid namespace."""

RT_SIGTIMEDWAIT = (["128"], ["137"])
"""The call's number on x86-64 and aarch64, as /proc/PID/syscall has it."""


def would_drop(pid: int, signum: int) -> bool:
    """Whether a process is the first of its pid namespace and neither blocks, ignores nor catches a signal (proc_pid_status(5)).

    While a process sleeps in sigtimedwait(2), as the small init of `run --init` does, the kernel shows what it waits for as not
    blocked; so one that is found there does not drop it.
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
