/* Changing a shared directory under somebody else's feet. */
#include "payload.h"
#include <sched.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

/* ONE and OTHER change places as fast as can be, until standard input ends. */
int exchange(int argc, char **argv)
{
    if (argc != 2)
        return 64;
    long done = 0;
    if (syscall(SYS_renameat2, AT_FDCWD, argv[0], AT_FDCWD, argv[1], RENAME_EXCHANGE) < 0) {
        tell_result("exchange", argv[0], -1);
        return 1;
    }
    tell("exchange", argv[0], 0, "ready");
    while (!input_ended())
        for (int i = 0; i < 20; i++) {
            if (syscall(SYS_renameat2, AT_FDCWD, argv[0], AT_FDCWD, argv[1], RENAME_EXCHANGE) == 0)
                done++;
            sched_yield();
        }
    char value[32];
    snprintf(value, sizeof value, "%ld", done);
    tell("exchanged", argv[0], 0, value);
    return 0;
}

/* Links with the names that a runtime makes or opens, in DIRECTORY, to TARGET. */
int make_links(int argc, char **argv)
{
    static const char *const names[] = {"proc", "sys", "dev", "null", "console", "pts", "ptmx", "etc", "passwd", "tmp"};
    if (argc != 2)
        return 64;
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[0], names[i]);
        tell_result("symlink", names[i], symlink(argv[1], path));
    }
    return 0;
}
