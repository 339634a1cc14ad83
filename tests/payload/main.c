/* The table of verbs. */
#include "payload.h"

static const struct {
    const char *name;
    verb *run;
    const char *arguments;
} VERBS[] = {
    {"read", read_files, "PATH..."},
    {"write", write_files, "PATH=TEXT..."},
    {"list", list_directories, "PATH..."},
    {"stat", stat_files, "PATH..."},
    {"statfs", filesystem_types, "PATH..."},
    {"make", make_files, "DIRECTORY..."},
    {"walk-up", walk_up, "NAME: look for it in the working directory and in all above it"},
    {"identity", identity, ""},
    {"status", status_lines, "FIELD..."},
    {"fds", descriptors, ""},
    {"env", environment, ""},
    {"calls", system_calls, ""},
    {"namespaces", new_namespaces, ""},
    {"handles", open_by_handle, ""},
    {"remounts", remounts, ""},
    {"release-agent", release_agent, ""},
    {"mount-tmpfs", mount_tmpfs, "PATH..."},
    {"devices", device_nodes, "DIRECTORY TYPE:MAJOR:MINOR..."},
    {"partitions", partition_nodes, "DIRECTORY"},
    {"sockets", socket_families, "FAMILY..."},
    {"unix", unix_names, ""},
    {"vsock", vsock_ports, "CID:PORT..."},
    {"hold", hold, "until standard input ends"},
    {"signals", signal_games, ""},
    {"kill-all", kill_all, "PID..."},
    {"bomb", fork_bomb, "LIMIT"},
    {"fork-for-ever", fork_for_ever, ""},
    {"eat", eat_memory, "MEBIBYTES"},
    {"flood", flood, ""},
    {"signal-state", signal_state, "NUMBER"},
    {"stop-all", stop_all, ""},
    {"sleep", sleep_long, ""},
    {"sleep-a-little", sleep_a_little, ""},
    {"run", run_as_child, "PROGRAM ARGUMENT..."},
    {"hunt-joiners", hunt_joiners, "until standard input ends"},
    {"hunt-programs", hunt_programs, "until standard input ends"},
    {"trace-for-ever", trace_for_ever, "until standard input ends"},
    {"look", look_at_processes, "PROC"},
    {"observe", observe, "PROC/PID CGROUP STATE: what a process has and has made, for its owner"},
    {"exchange", exchange, "ONE OTHER"},
    {"make-links", make_links, "DIRECTORY TARGET"},
    {"terminal", terminal_tricks, "TEXT"},
    {"abis", other_abis, ""},
    {"filters", more_filters, ""},
    {"add-key", add_key, "TEXT"},
    {"read-key", read_key, "SERIAL"},
};

static int run_verb(int argc, char **argv)
{
    for (size_t i = 0; argc > 0 && i < COUNT(VERBS); i++)
        if (strcmp(argv[0], VERBS[i].name) == 0)
            return VERBS[i].run(argc - 1, argv + 1);
    for (size_t i = 0; i < COUNT(VERBS); i++)
        fprintf(stderr, "payload %s %s\n", VERBS[i].name, VERBS[i].arguments);
    return 64;
}

/* Several verbs, with a lone + between them, run one after the other. */
int main(int argc, char **argv)
{
    int status = 0;
    for (int first = 1, last; first <= argc; first = last + 1) {
        for (last = first; last < argc && strcmp(argv[last], "+"); last++)
            ;
        int ended = run_verb(last - first, argv + first);
        status = status ? status : ended;
    }
    return status;
}
