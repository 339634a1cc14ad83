"""What past escapes teach: the rules that the suite holds, each with where it comes from.

A test says which rule it holds by `@pytest.mark.escape("E01")`; that none is without a test is a test too (test_matrix).
`docs/escapes.md` is this table and those tests, written by `python -m tests.escape.matrix`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """`origin`: the advisory, or the class of attack. `later`: what else the rule is for, as soon as the agent has it."""

    id: str
    origin: str
    rule: str
    later: str = ""


RULES = (
    Rule("E01", "CVE-2016-9962", "whoever joins a container cannot be traced or read by it, from its fork to its exec"),
    Rule("E02", "CVE-2024-21626", "the working directory is inside the root, whatever /proc/self/fd offers"),
    Rule("E03", "CVE-2024-21626", "a program has its standard streams open and nothing else"),
    Rule("E04", "CVE-2019-5736", "the agent's program cannot be written through /proc/PID/exe, nor be started by a container's"),
    Rule("E06", "CVE-2019-16884", "/proc is a procfs: nothing is mounted on it or below it"),
    Rule(
        "E07",
        "CVE-2019-19921, CVE-2023-27561, CVE-2019-18837, CVE-2025-54867",
        "proc and sysfs are mounted where no link leads, and their masks lie on them and nowhere else",
    ),
    Rule("E08", "CVE-2021-30465", "a mount lands on the object that was resolved inside the root, whatever is renamed meanwhile"),
    Rule("E09", "CVE-2015-1335, CVE-2024-45310", "what is made for a mount, a device or a working directory is made inside the root"),
    Rule("E10", "CVE-2020-2026", "a link in a shared directory does not lead out of it, as root or as volume"),
    Rule("E11", "CVE-2025-31133, CVE-2025-62161", "only the null device masks a path"),
    Rule("E12", "CVE-2025-52565, CVE-2026-88264", "the console is the terminal's own other end, placed without following a link"),
    Rule("E13", "CVE-2026-88265", "no owner is changed through a null device that is none"),
    Rule("E14", "CVE-2026-41579, CVE-2026-47766", "devices are made in a /dev that no link leads to"),
    Rule("E15", "CVE-2025-52881, CVE-2025-62596", "writes to procfs go through a procfs of the agent's own"),
    Rule("E16", "CVE-2023-28642", "a profile is applied or refused, also where /proc is a link"),
    Rule("E17", "CVE-2023-25809", "no group but the container's own can be written"),
    Rule("E18", "CVE-2022-0492", "version 1 groups cannot be mounted, so there is no release_agent"),
    Rule("E19", "core_pattern, modprobe, uevent_helper", "/proc/sys and /sys are read-only, and stay so"),
    Rule("E20", "sysrq, kcore, keys", "what tells of the machine is hidden, what steers it read-only"),
    Rule("E21", "device nodes", "a device that no rule names cannot be opened"),
    Rule("E22", "CVE-2020-2023", "the machine's disks are refused, also to a container with every capability"),
    Rule("E23", "docker's capabilities", "no program, set-user-ID or with file capabilities, gets more than the bounding set"),
    Rule("E24", "CVE-2022-29162, CVE-2022-24769, CVE-2022-27650, CVE-2025-27612", "inheritable sets are as listed, also for exec"),
    Rule("E25", "no_new_privs", "set means set, for exec as well"),
    Rule("E26", "keyrings", "a key of one container is not another's"),
    Rule("E27", "ptrace between containers", "processes outside cannot be signalled or read, also where their /proc is mounted"),
    Rule("E28", "CVE-2017-5226", "what is typed into a terminal stays in it"),
    Rule("E29", "CVE-2020-15257", "no socket of the agent's can be reached by a name", "a gRPC port"),
    Rule("E30", "vsock has no namespaces", "the agent's port answers the host alone; the profile denies the family", "a gRPC port"),
    Rule("E31", "CVE-2020-14386, CVE-2017-7308, AF_ALG", "socket families that nobody needs are denied"),
    Rule("E32", "CVE-2022-0185", "no new namespace without CAP_SYS_ADMIN"),
    Rule("E33", "the Shocker", "no file is opened by its handle"),
    Rule("E34", "CVE-2025-23266", "hooks have their own environment alone"),
    Rule("E35", "CVE-2020-2024, CVE-2024-0132", "taking down follows no link"),
    Rule("E36", "CVE-2020-2025, CVE-2026-24834", "the guest's root cannot be written, through whatever device"),
    Rule("E37", "CVE-2020-27151", "annotations, labels and image configurations steer nothing"),
    Rule("E39", "CVE-2018-15664, CVE-2019-14271, CVE-2026-41326", "copying files stays in its directory, by links too", "archives"),
    Rule("E40", "CVE-2022-23648", "the container's passwd is read inside its root, bounded"),
    Rule("E41", "CVE-2021-43784", "lists and texts have bounds"),
    Rule("E42", "CVE-2022-36109, CVE-2023-25173", "groups are exactly those listed"),
    Rule("E43", "CVE-2016-3697, CVE-2024-40635, CVE-2026-30892", "ids are numbers in range, names are looked up by one function"),
    Rule("E44", "groups outside the hierarchy", "a group's path stays below the agent's own"),
    Rule("E45", "CVE-2025-24965", "no file of an image steers the agent"),
    Rule("E46", "ids in paths", "an id is checked before it becomes part of a path"),
    Rule("E47", "fork bombs", "the limit of processes is there before the first; the agent answers meanwhile"),
    Rule("E48", "memory in set-up", "a limit that is too small for the set-up is an error, not a hang"),
    Rule("E49", "output that nobody reads", "the agent holds no more of it than the pipe"),
    Rule("E50", "signals", "nothing inside can signal the agent"),
    Rule("E51", "calls for administrators", "each is denied"),
    Rule("E52", "clocks", "the clock cannot be set"),
    Rule("E53", "mount propagation", "what is mounted inside appears nowhere outside"),
    Rule("E54", "a shared pid namespace", "the agent and whoever joins cannot be seen or read in it", "`sandbox_pidns`, refused so far"),
    Rule("E55", "environment", "the program's environment is the specification's"),
    Rule("E56", "signal masks", "all signals have their defaults"),
    Rule("E57", "mapped mounts", "a file made through a mapped mount belongs to the mapped id"),
    Rule("E58", "sysctl names", "only what belongs to a namespace of the container's own is written"),
    Rule("E59", "other ABIs", "the filter holds for 32-bit and x32 numbers too"),
    Rule("E60", "seccomp", "further filters only add"),
    Rule("E61", "CVE-2026-44210, CVE-2026-50540", "a pod's annotations steer nothing of its node"),
)
