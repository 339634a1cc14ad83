/* The kernel's other doors on x86-64: 32-bit and x32 numbers. And what a filter of one's own may do. */
#include "payload.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#if defined(__x86_64__)
#define X32_BIT 0x40000000L

static long call_32(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

static void tell_raw(const char *try, const char *on, long result)
{
    tell(try, on, result < 0 && result > -4096 ? (int)-result : 0, "");
}

static void try_32(const char *name, long number, long a, long b)
{
    pid_t pid = fork();
    if (pid == 0) {
        tell_raw("int 0x80", name, call_32(number, a, b, 0));
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) { /* no 32-bit calls in this kernel, or a filter that kills */
        char value[16];
        snprintf(value, sizeof value, "%d", WTERMSIG(status));
        tell("int 0x80 killed", name, 0, value);
    }
}

int other_abis(int argc, char **argv)
{
    (void)argc, (void)argv;
    try_32("mount", 21, 0, 0);
    try_32("unshare", 310, 0x10000000, 0);
    try_32("keyctl", 288, 0, 0);
    try_32("bpf", 357, 0, 0);
    try_32("reboot", 88, 0, 0);
    const struct {
        const char *name;
        long number;
    } calls[] = {{"mount", SYS_mount}, {"unshare", SYS_unshare}, {"keyctl", SYS_keyctl}, {"bpf", SYS_bpf}, {"setns", SYS_setns}};
    for (size_t i = 0; i < COUNT(calls); i++)
        tell_result("x32", calls[i].name, syscall(X32_BIT | calls[i].number, i == 1 ? 0x10000000L : 0L, 0L, 0L, 0L, 0L));
    return 0;
}
#else
int other_abis(int argc, char **argv)
{
    (void)argc, (void)argv;
    return 0;
}
#endif

int more_filters(int argc, char **argv)
{
    (void)argc, (void)argv;
    uint32_t action = SECCOMP_RET_ALLOW;
    tell_result("SECCOMP_GET_ACTION_AVAIL", "allow", syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action));
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    tell_result("PR_SET_SECCOMP", "allow everything", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
    tell_result("call", "mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
    tell_result("call", "keyctl", syscall(SYS_keyctl, 0, -3, 0, 0, 0));
    tell_result("PR_SET_SECCOMP", "none", prctl(PR_SET_SECCOMP, SECCOMP_MODE_DISABLED, NULL, 0, 0));
    return 0;
}
