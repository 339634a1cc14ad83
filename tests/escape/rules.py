"""The rules that follow from published escapes, each with its origin.

A test names the rules that it checks by `@pytest.mark.escape("E01")`. test_matrix fails for a rule
without a test. `python -m tests.escape.matrix` writes rules and tests into `docs/escapes.md`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule. `origin` is the advisory, or the class of attack."""

    id: str
    origin: str
    rule: str


RULES = (
    Rule("E01", "CVE-2016-9962", "a process that exec adds cannot be traced or read by the container, from its fork to its execve(2)"),
    Rule("E02", "CVE-2024-21626", "the working directory is inside the root, even if it is named through /proc/self/fd"),
    Rule("E03", "CVE-2024-21626", "a program has only its standard streams open"),
    Rule("E04", "CVE-2019-5736", "a container can neither write nor start the agent's program through /proc/PID/exe"),
    Rule("E06", "CVE-2019-16884", "/proc is a procfs, and the caller can mount nothing on or below it"),
    Rule(
        "E07",
        "CVE-2019-19921, CVE-2023-27561, CVE-2019-18837, CVE-2025-54867",
        "proc and sysfs are not mounted through a link, and their masks lie on them and nowhere else",
    ),
    Rule("E08", "CVE-2021-30465", "a mount lands on the object that was resolved inside the root, even if a path is renamed meanwhile"),
    Rule(
        "E09",
        "CVE-2015-1335, CVE-2024-45310",
        "files and folders made for a mount, a device or a working directory are made inside the root",
    ),
    Rule("E10", "CVE-2020-2026", "a link in a shared directory does not lead out of it, neither as a root nor as a volume"),
    Rule("E11", "CVE-2025-31133, CVE-2025-62161", "only the null device masks a path"),
    Rule(
        "E12",
        "CVE-2025-52565, CVE-2026-88264",
        "the console is the other end of the container's terminal, and is mounted without following a link",
    ),
    Rule("E13", "CVE-2026-88265", "no owner is changed through a /dev/null that is not the null device"),
    Rule("E14", "CVE-2026-41579, CVE-2026-47766", "devices are not made in a /dev that is a link"),
    Rule("E15", "CVE-2025-52881, CVE-2025-62596", "the agent writes to a procfs that only it has, not to the container's"),
    Rule("E16", "CVE-2023-28642", "a profile is applied or refused, even if /proc is a link"),
    Rule("E17", "CVE-2023-25809", "only the container's own cgroup can be written"),
    Rule("E18", "CVE-2022-0492", "cgroup v1 cannot be mounted, so there is no release_agent"),
    Rule("E19", "core_pattern, modprobe, uevent_helper", "/proc/sys and /sys are read-only, and cannot be made writable"),
    Rule(
        "E20",
        "sysrq, kcore, keys",
        "files that reveal something about the kernel or hardware are masked, those that control it are read-only",
    ),
    Rule("E21", "device nodes", "a device that no rule allows cannot be opened"),
    Rule("E22", "CVE-2020-2023", "the VM's disks cannot be opened, even by a container with every capability"),
    Rule("E23", "docker's capabilities", "no program gets more than the bounding set, even if it is set-user-ID or has file capabilities"),
    Rule(
        "E24", "CVE-2022-29162, CVE-2022-24769, CVE-2022-27650, CVE-2025-27612", "inheritable capabilities are those listed, for exec too"
    ),
    Rule("E25", "no_new_privs", "no_new_privs is set if the specification sets it, for exec too"),
    Rule("E26", "keyrings", "a container cannot use the keys of another"),
    Rule("E27", "ptrace between containers", "processes outside cannot be signalled or read, even if their /proc is mounted inside"),
    Rule("E28", "CVE-2017-5226", "input that a container puts into its terminal does not reach another one"),
    Rule("E29", "CVE-2020-15257", "a container reaches none of the agent's sockets by name"),
    Rule("E30", "vsock has no namespaces", "the agent's ports answer only the host, and the seccomp profile denies the socket family"),
    Rule("E31", "CVE-2020-14386, CVE-2017-7308, AF_ALG", "socket families that containers do not need are denied"),
    Rule("E32", "CVE-2022-0185", "no new namespace can be made without CAP_SYS_ADMIN"),
    Rule("E33", "the Shocker", "no file can be opened by its handle"),
    Rule("E34", "CVE-2025-23266", "hooks get only the environment that is listed for them"),
    Rule("E35", "CVE-2020-2024, CVE-2024-0132", "removing a container or a storage follows no link"),
    Rule("E36", "CVE-2020-2025, CVE-2026-24834", "the guest's root cannot be written through any device"),
    Rule("E37", "CVE-2020-27151", "annotations, labels and image configurations cannot change how the agent works"),
    Rule("E39", "CVE-2018-15664, CVE-2019-14271, CVE-2026-41326", "copied files stay in their directory, even through links"),
    Rule("E40", "CVE-2022-23648", "the container's passwd is read inside its root, and only up to a limit"),
    Rule("E41", "CVE-2021-43784", "lists and strings have maximum lengths"),
    Rule("E42", "CVE-2022-36109, CVE-2023-25173", "supplementary groups are exactly those listed"),
    Rule("E43", "CVE-2016-3697, CVE-2024-40635, CVE-2026-30892", "ids are numbers in range, and names are looked up by one function"),
    Rule("E44", "cgroups outside the hierarchy", "the path of a cgroup stays below the agent's own cgroup"),
    Rule("E45", "CVE-2025-24965", "no file of an image can change how the agent works"),
    Rule("E46", "ids in paths", "an id is checked before it becomes part of a path"),
    Rule("E47", "fork bombs", "the limit on processes is set before the first process exists, and the agent answers meanwhile"),
    Rule("E48", "memory in set-up", "a memory limit that is too small for the set-up is an error, not a hang"),
    Rule("E49", "output that nobody reads", "the agent buffers no more output than the pipe holds"),
    Rule("E50", "signals", "a container cannot signal the agent"),
    Rule("E51", "calls for administrators", "system calls for administrators are denied"),
    Rule("E52", "clocks", "a container cannot set the clock"),
    Rule("E53", "mount propagation", "mounts made inside a container do not appear outside"),
    Rule("E54", "a shared pid namespace", "in it, neither the agent nor a process that exec adds can be seen or read"),
    Rule("E55", "environment", "the program has exactly the environment of the specification"),
    Rule("E56", "signal masks", "all signals have their default action and none is blocked"),
    Rule("E57", "id-mapped mounts", "a file made through an id-mapped mount belongs to the mapped id"),
    Rule("E58", "sysctl names", "only sysctls of the container's own namespaces can be set"),
    Rule("E59", "other ABIs", "the filter applies to 32-bit and x32 system calls too"),
    Rule("E60", "seccomp", "a container can only tighten its filter"),
    Rule("E61", "CVE-2026-44210, CVE-2026-50540", "the annotations of a pod cannot change anything on its node"),
)
