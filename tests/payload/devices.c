/* Nodes of the machine's devices: made where that is allowed, then opened. */
#include "payload.h"
#include <sys/sysmacros.h>

static void try_node(const char *directory, char type, unsigned major_, unsigned minor_)
{
    char path[512], name[64];
    mode_t kind = type == 'b' ? S_IFBLK : S_IFCHR;
    snprintf(name, sizeof name, "%c:%u:%u", type, major_, minor_);
    snprintf(path, sizeof path, "%s/node-%s", directory, name);
    long made = mknod(path, kind | 0666, makedev(major_, minor_));
    tell_result("mknod", name, made);
    if (made < 0)
        return;
    const struct {
        const char *try;
        int flags;
    } ways[] = {{"open to read", O_RDONLY}, {"open to write", O_WRONLY}, {"open", O_RDWR}};
    for (size_t i = 0; i < COUNT(ways); i++) {
        int fd = open(path, ways[i].flags | O_NONBLOCK | O_NOCTTY);
        tell_result(ways[i].try, name, fd);
        if (fd >= 0)
            close(fd);
    }
    unlink(path);
}

int device_nodes(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char type;
        unsigned major_, minor_;
        if (sscanf(argv[i], "%c:%u:%u", &type, &major_, &minor_) != 3)
            return 64;
        try_node(argv[0], type, major_, minor_);
    }
    return 0;
}

/* Every block device that the kernel tells of, and those that /sys/dev/block lists. */
static void from_sysfs(const char *name, void *context)
{
    unsigned major_, minor_;
    if (sscanf(name, "%u:%u", &major_, &minor_) == 2)
        try_node(context, 'b', major_, minor_);
}

int partition_nodes(int argc, char **argv)
{
    char text[16384];
    if (argc != 1)
        return 64;
    int fd = open("/proc/partitions", O_RDONLY);
    if (fd >= 0 && slurp(fd, text, sizeof text) > 0) {
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
            unsigned major_, minor_;
            if (sscanf(line, "%u %u", &major_, &minor_) == 2)
                try_node(argv[0], 'b', major_, minor_);
        }
    }
    each_entry("/sys/dev/block", from_sysfs, argv[0]);
    return 0;
}
