/* Calls that only an administrator of the machine may make, each with arguments that do no harm should it be let through. */
#include "payload.h"
#include <linux/sched.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/timex.h>
#include <time.h>

#define REBOOT_MAGIC1 0xfee1deadL
#define REBOOT_MAGIC2 672274793L
#define REBOOT_CAD_OFF 0L

static char scratch[4096];
static struct timespec now;
static struct timeval now_too;

static void plain_calls(void)
{
    const struct {
        const char *name;
        long number, a, b, c, d, e;
    } calls[] = {
        {"mount", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0},
        {"umount2", SYS_umount2, (long)"/proc", 0, 0, 0, 0},
        {"pivot_root", SYS_pivot_root, (long)"/", (long)"/", 0, 0, 0},
        {"open_tree", 428, AT_FDCWD, (long)"/", 1, 0, 0},
        {"move_mount", 429, AT_FDCWD, (long)"/", AT_FDCWD, (long)"/tmp", 0},
        {"fsopen", 430, (long)"tmpfs", 0, 0, 0, 0},
        {"fspick", 433, AT_FDCWD, (long)"/", 0, 0, 0},
        {"mount_setattr", 442, AT_FDCWD, (long)"/", 0, (long)scratch, 32},
        {"reboot", SYS_reboot, REBOOT_MAGIC1, REBOOT_MAGIC2, REBOOT_CAD_OFF, 0, 0},
        {"swapon", SYS_swapon, (long)"/nothing", 0, 0, 0, 0},
        {"swapoff", SYS_swapoff, (long)"/nothing", 0, 0, 0, 0},
        {"init_module", SYS_init_module, (long)scratch, 16, (long)"", 0, 0},
        {"finit_module", SYS_finit_module, -1, (long)"", 0, 0, 0},
        {"delete_module", SYS_delete_module, (long)"nothing", O_NONBLOCK, 0, 0, 0},
        {"kexec_load", SYS_kexec_load, 0, 0, 0, 0, 0},
        {"kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0},
        {"bpf", SYS_bpf, 0, (long)scratch, 72, 0, 0},
        {"perf_event_open", SYS_perf_event_open, (long)scratch, 0, -1, -1, 0},
        {"userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0},
        {"io_uring_setup", 425, 1, (long)scratch, 0, 0, 0},
        {"acct", SYS_acct, (long)"/tmp/acct", 0, 0, 0, 0},
        {"quotactl", SYS_quotactl, 0x800001, (long)"/dev/null", 0, 0, 0},
        {"sethostname", SYS_sethostname, (long)"owned", 5, 0, 0, 0},
        {"setdomainname", SYS_setdomainname, (long)"owned", 5, 0, 0, 0},
        {"syslog", SYS_syslog, 5, 0, 0, 0, 0},
        {"add_key", SYS_add_key, (long)"user", (long)"k", (long)"v", 1, -3},
        {"request_key", SYS_request_key, (long)"user", (long)"k", 0, 0, 0},
        {"keyctl", SYS_keyctl, 0, -3, 0, 0, 0},
        {"clock_settime", SYS_clock_settime, CLOCK_REALTIME, (long)&now, 0, 0, 0},
        {"settimeofday", SYS_settimeofday, (long)&now_too, 0, 0, 0, 0},
        {"setns", SYS_setns, 0, 0, 0, 0, 0},
        {"vhangup", SYS_vhangup, 0, 0, 0, 0, 0},
        {"move_pages", SYS_move_pages, 1, 0, 0, 0, 0},
        {"kcmp", SYS_kcmp, 1, 1, 0, 0, 0},
        {"nice", SYS_setpriority, 0, 0, -5, 0, 0},
#if defined(__x86_64__)
        {"iopl", SYS_iopl, 3, 0, 0, 0, 0},
        {"ioperm", SYS_ioperm, 0x80, 1, 1, 0, 0},
        {"modify_ldt", SYS_modify_ldt, 0x11, (long)scratch, 0, 0, 0},
#endif
    };
    for (size_t i = 0; i < COUNT(calls); i++) {
        errno = 0;
        tell_result("call", calls[i].name, syscall(calls[i].number, calls[i].a, calls[i].b, calls[i].c, calls[i].d, calls[i].e));
    }
}

int system_calls(int argc, char **argv)
{
    (void)argc, (void)argv;
    clock_gettime(CLOCK_REALTIME, &now);
    now_too.tv_sec = now.tv_sec;
    plain_calls();
    struct timex clock = {.modes = ADJ_TICK, .tick = 10000};
    tell_result("call", "adjtimex", adjtimex(&clock) < 0 ? -1 : 0);
    return 0;
}

static const struct {
    const char *name;
    unsigned long flag;
} KINDS[] = {
    {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80},
};

static void try_clone(const char *name, unsigned long flag)
{
    long pid = syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    tell_result("clone", name, pid);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
}

int new_namespaces(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (size_t i = 0; i < COUNT(KINDS); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            tell_result("unshare", KINDS[i].name, syscall(SYS_unshare, KINDS[i].flag));
            if (KINDS[i].flag != 0x80) /* not a flag of clone(2) */
                try_clone(KINDS[i].name, KINDS[i].flag);
            char path[64];
            snprintf(path, sizeof path, "/proc/self/ns/%s", KINDS[i].name);
            int fd = open(path, O_RDONLY);
            tell_result("setns", KINDS[i].name, fd < 0 ? -1 : syscall(SYS_setns, fd, 0));
            _exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        _exit(0);
    tell_result("clone3", "user", pid);
    return 0;
}

/* The Shocker: open what a file system has under inode 2, its root, wherever this container's root lies in it. */
int open_by_handle(int argc, char **argv)
{
    struct {
        struct file_handle head;
        unsigned char bytes[64];
    } handle = {.head = {.handle_bytes = 64}};
    int mount_id = 0;
    (void)argc, (void)argv;
    tell_result("name_to_handle_at", "/", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", &handle, &mount_id, 0));
    int root = open("/", O_RDONLY | O_DIRECTORY);
    handle.head.handle_bytes = 8;
    handle.head.handle_type = 1;
    memset(handle.bytes, 0, sizeof handle.bytes);
    handle.bytes[0] = 2;
    tell_result("open_by_handle_at", "inode 2", syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY));
    return 0;
}
