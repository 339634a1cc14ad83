/* Not an attacker: the owner's look at the agent, before and after, so that a test can say that nothing stayed. */
#include "payload.h"

static char own_ends[3][64];

static void find_own_ends(void)
{
    for (int fd = 0; fd < 3; fd++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, own_ends[fd], sizeof own_ends[fd] - 1);
        own_ends[fd][length < 0 ? 0 : length] = 0;
    }
}

static int is_own_end(const char *target)
{
    return !strcmp(target, own_ends[0]) || !strcmp(target, own_ends[1]) || !strcmp(target, own_ends[2]);
}

static void tell_descriptor(const char *name, void *context)
{
    char path[600], target[VALUE_MAX];
    snprintf(path, sizeof path, "%s/fd/%s", (const char *)context, name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return;
    target[length] = 0;
    if (!is_own_end(target))
        tell("descriptor", name, 0, target);
}

static void tell_lines(const char *process, const char *file, const char *what, const char *prefix)
{
    static char text[1 << 20];
    char path[600];
    snprintf(path, sizeof path, "%s/%s", process, file);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || slurp(fd, text, sizeof text) < 0) {
        tell(what, path, errno, "");
        return;
    }
    close(fd);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strncmp(line, prefix, strlen(prefix)) == 0)
            tell(what, "", 0, line);
}

/* All that the agent started and has not reaped. The looker itself is one where the agent has started it. */
static void tell_children(const char *process)
{
    char path[600], text[1 << 16];
    const char *pid = strrchr(process, '/') + 1;
    snprintf(path, sizeof path, "%s/task/%s/children", process, pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || slurp(fd, text, sizeof text) < 0) {
        tell("child", path, errno, "");
        return;
    }
    close(fd);
    for (char *child = strtok(text, " \n"); child; child = strtok(NULL, " \n"))
        if (atoi(child) != getpid())
            tell("child", "", 0, child);
}

/* What is below a directory, on its own file system; of groups the directories only. One that goes meanwhile is passed over. */
struct walk {
    const char *kind, *directory;
    dev_t device;
};

static void tell_below(const char *name, void *context)
{
    const struct walk *walk = context;
    char path[1024];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", walk->directory, name);
    if (lstat(path, &status) || status.st_dev != walk->device)
        return;
    if (strcmp(walk->kind, "group") || S_ISDIR(status.st_mode))
        tell(walk->kind, path, 0, "");
    if (S_ISDIR(status.st_mode)) {
        struct walk below = {walk->kind, path, walk->device};
        each_entry(path, tell_below, &below);
    }
}

static void tell_tree(const char *kind, const char *directory)
{
    struct stat status;
    if (stat(directory, &status)) {
        tell(kind, directory, errno, "");
        return;
    }
    struct walk walk = {kind, directory, status.st_dev};
    tell(kind, directory, 0, "");
    each_entry(directory, tell_below, &walk);
}

int observe(int argc, char **argv)
{
    if (argc != 3)
        return 64;
    find_own_ends();
    char directory[600];
    snprintf(directory, sizeof directory, "%s/fd", argv[0]);
    if (each_entry(directory, tell_descriptor, argv[0]))
        tell("descriptor", directory, errno, "");
    tell_lines(argv[0], "mountinfo", "mount", "");
    tell_lines(argv[0], "status", "status", "VmRSS");
    tell_children(argv[0]);
    tell_tree("group", argv[1]);
    tell_tree("file", argv[2]);
    return 0;
}
