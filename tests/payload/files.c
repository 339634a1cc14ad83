/* Reading, writing, listing, making: what a path gives. */
#include "payload.h"
#include <sys/vfs.h>

int read_files(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        char text[VALUE_MAX];
        int fd = open(argv[i], O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || slurp(fd, text, sizeof text) < 0) {
            tell("read", argv[i], errno, "");
        } else {
            tell("read", argv[i], 0, text);
        }
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

int write_files(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        char *text = strchr(argv[i], '=');
        if (!text)
            return 64;
        *text++ = 0;
        int fd = open(argv[i], O_WRONLY | O_NOCTTY);
        long result = fd < 0 ? -1 : write(fd, text, strlen(text));
        tell_result("write", argv[i], result);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static void add_name(const char *name, void *context)
{
    char *value = context;
    size_t used = strlen(value);
    if (used + strlen(name) + 2 < VALUE_MAX)
        sprintf(value + used, "%s%s", used ? " " : "", name);
}

int list_directories(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        char value[VALUE_MAX] = "";
        int failed = each_entry(argv[i], add_name, value);
        tell("list", argv[i], failed ? errno : 0, value);
    }
    return 0;
}

int stat_files(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        struct stat status;
        char value[VALUE_MAX] = "";
        int failed = lstat(argv[i], &status);
        if (!failed)
            snprintf(value, sizeof value, "%o %u:%u %llu", status.st_mode, status.st_uid, status.st_gid, (unsigned long long)status.st_rdev);
        tell("stat", argv[i], failed ? errno : 0, value);
    }
    return 0;
}

int filesystem_types(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        struct statfs status;
        char value[64] = "";
        int failed = statfs(argv[i], &status);
        if (!failed)
            snprintf(value, sizeof value, "%lx", (unsigned long)status.f_type);
        tell("statfs", argv[i], failed ? errno : 0, value);
    }
    return 0;
}

int make_files(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/made-directory", argv[i]);
        tell_result("mkdir", argv[i], mkdir(path, 0755));
        snprintf(path, sizeof path, "%s/made-file", argv[i]);
        int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
        tell_result("create", argv[i], fd);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

/* From the working directory upwards, farther than any tree here is deep. */
int walk_up(int argc, char **argv)
{
    if (argc != 1)
        return 64;
    char cwd[4096] = "";
    long length = syscall(SYS_getcwd, cwd, sizeof cwd);
    tell("getcwd", ".", length < 0 ? errno : 0, cwd);
    char path[1024] = "";
    for (int depth = 0; depth < 60; depth++) {
        char wanted[2048];
        struct stat status;
        snprintf(wanted, sizeof wanted, "%s%s", path, argv[0]);
        if (lstat(wanted, &status) == 0)
            tell("found above", wanted, 0, argv[0]);
        strcat(path, "../");
    }
    return 0;
}
