/* An attacker's program for tests: static, of system calls alone; what to do are its arguments.
 *
 * Each thing it tries becomes one line of JSON on standard output:
 *     {"try": "open for writing", "on": "/proc/sysrq-trigger", "answer": "EROFS", "value": ""}
 * `answer` is "ok" or the error's name; `value` is what was seen, as text.
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALUE_MAX 1500
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef int verb(int argc, char **argv);

/* report.c */
void tell(const char *try, const char *on, int error, const char *value);
void tell_result(const char *try, const char *on, long result);
const char *error_name(int error);
ssize_t slurp(int fd, char *buffer, size_t size);
int input_ended(void);
int each_entry(const char *directory, void (*use)(const char *name, void *context), void *context);

/* files.c */
verb read_files, write_files, list_directories, stat_files, walk_up, make_files, filesystem_types;

/* identity.c */
verb identity, descriptors, environment, status_lines;

/* calls.c */
verb system_calls, new_namespaces, open_by_handle;

/* mounts.c */
verb remounts, release_agent, mount_tmpfs;

/* devices.c */
verb device_nodes, partition_nodes;

/* sockets.c */
verb socket_families, unix_names, vsock_ports;

/* processes.c */
verb hold, signal_games, kill_all, fork_bomb, fork_for_ever, eat_memory, flood, run_as_child;
verb signal_state, stop_all, sleep_long, sleep_a_little;

/* hunt.c */
verb hunt_joiners, look_at_processes, hunt_programs, trace_for_ever;

/* observe.c */
verb observe;

/* races.c */
verb exchange, make_links;

/* terminal.c */
verb terminal_tricks;

/* abi.c */
verb other_abis, more_filters;

/* keys.c */
verb add_key, read_key;

#endif
