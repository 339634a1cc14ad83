/* Other processes, as /proc shows them: what can be opened of them, and through them. */
#include "payload.h"
#include <sys/ptrace.h>
#include <sys/uio.h>

static const char *proc = "/proc";
static struct stat own_root;
static char own_program[4096];
static long looked, denied;

/* One that is gone meanwhile shows nothing. */
static int is_foreign(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && (status.st_dev != own_root.st_dev || status.st_ino != own_root.st_ino);
}

static void count(long result)
{
    looked++;
    denied += result < 0 && (errno == EPERM || errno == EACCES);
}

/* A link of another process that this container may follow must lead to something of its own. */
static void look_at_link(const char *pid, const char *name)
{
    char path[300], target[VALUE_MAX];
    snprintf(path, sizeof path, "%s/%s/%s", proc, pid, name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    count(length);
    if (length < 0)
        return;
    target[length] = 0;
    if (strcmp(name, "exe") == 0 && strcmp(target, own_program) != 0)
        tell("foreign", path, 0, target);
    if (strcmp(name, "root") == 0 && is_foreign(path))
        tell("foreign", path, 0, target);
    if (strcmp(name, "cwd") == 0 && (target[0] != '/' || strncmp(target, "/canary", 7) == 0))
        tell("foreign", path, 0, target);
}

static void look_at_descriptors(const char *pid)
{
    for (int fd = 0; fd < 40; fd++) {
        char path[300], target[VALUE_MAX];
        snprintf(path, sizeof path, "%s/%s/fd/%d", proc, pid, fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0 && errno == ENOENT)
            continue;
        count(length);
        if (length < 0)
            return;
        target[length] = 0;
        if (fd > 2 && strncmp(target, "/proc", 5) != 0 && strncmp(target, proc, strlen(proc)) != 0)
            tell("foreign", path, 0, target);
    }
}

static void look_at_memory(const char *pid)
{
    char path[300], target[VALUE_MAX];
    snprintf(path, sizeof path, "%s/%s/mem", proc, pid);
    int fd = open(path, O_RDWR);
    count(fd);
    if (fd >= 0) {
        snprintf(path, sizeof path, "%s/%s/exe", proc, pid);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        if (length >= 0 && strcmp(target, own_program) != 0)
            tell("foreign", path, 0, "memory opened");
        close(fd);
    }
    snprintf(path, sizeof path, "%s/%s/environ", proc, pid);
    fd = open(path, O_RDONLY);
    count(fd);
    if (fd < 0)
        return;
    char text[8192];
    if (slurp(fd, text, sizeof text) > 0 && (strstr(text, "KATA_AGENT") || strstr(text, "PYTHON") || strstr(text, "_PYI_")))
        tell("foreign", path, 0, "environment of the agent");
    close(fd);
}

static void read_memory(const char *pid)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    count(syscall(SYS_process_vm_readv, atoi(pid), &here, 1L, &there, 1L, 0L));
}

static void attach(const char *pid)
{
    pid_t number = (pid_t)atoi(pid);
    long attached = ptrace(PTRACE_ATTACH, number, NULL, NULL);
    count(attached);
    if (attached < 0)
        return;
    int status;
    if (waitpid(number, &status, __WALL) == number && WIFSTOPPED(status)) {
        look_at_link(pid, "exe");
        look_at_link(pid, "root");
    }
    /* An execve(2) under way stops it once more: detached is only what is stopped. */
    while (ptrace(PTRACE_DETACH, number, NULL, SIGCONT) < 0 && kill(number, 0) == 0 && waitpid(number, &status, __WALL | WNOHANG) >= 0)
        ;
    kill(number, SIGCONT);
}

static void look_at(const char *pid, void *context)
{
    if (strspn(pid, "0123456789") != strlen(pid) || (context && atoi(pid) == getpid()))
        return; /* in another procfs the number is somebody else's */
    look_at_link(pid, "root");
    look_at_link(pid, "exe");
    look_at_link(pid, "cwd");
    look_at_descriptors(pid);
    look_at_memory(pid);
    read_memory(pid);
    if (context)
        attach(pid);
}

static void begin(void)
{
    stat("/", &own_root);
    ssize_t length = readlink("/proc/self/exe", own_program, sizeof own_program - 1);
    own_program[length < 0 ? 0 : length] = 0;
}

static void end(void)
{
    char value[64];
    snprintf(value, sizeof value, "%ld", looked);
    tell("looked", proc, 0, value);
    snprintf(value, sizeof value, "%ld", denied);
    tell("denied", proc, 0, value);
}

int hunt_joiners(int argc, char **argv)
{
    (void)argc, (void)argv;
    int trace = 1;
    begin();
    tell("hunt", "", 0, "ready");
    while (!input_ended())
        each_entry(proc, look_at, &trace);
    end();
    return 0;
}

/* Every process of another procfs, once. */
int look_at_processes(int argc, char **argv)
{
    begin();
    proc = argc ? argv[0] : "/proc";
    if (each_entry(proc, look_at, NULL))
        tell("list", proc, errno, "");
    end();
    return 0;
}

/* CVE-2019-5736: hold the program of whoever joins, and write to it when it has ended. */
static void try_program(const char *pid, void *context)
{
    char path[300];
    if (strspn(pid, "0123456789") != strlen(pid) || atoi(pid) == getpid())
        return;
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    int program = open(path, O_PATH);
    count(program);
    if (program < 0)
        return;
    (void)context;
    char again[64], target[VALUE_MAX];
    snprintf(again, sizeof again, "/proc/self/fd/%d", program);
    ssize_t length = readlink(again, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    int fd = -1;
    for (int i = 0; i < 200 && fd < 0; i++) {
        fd = open(again, O_RDWR);
        if (fd < 0 && errno == ETXTBSY)
            usleep(1000);
    }
    char byte;
    if (fd >= 0 && pread(fd, &byte, 1, 0) == 1) /* what is there already: a test that fails must not break a program */
        tell_result("write", target, pwrite(fd, &byte, 1, 0));
    else
        tell_result("write", target, -1);
    if (fd >= 0)
        close(fd);
    close(program);
}

int hunt_programs(int argc, char **argv)
{
    (void)argc, (void)argv;
    tell("hunt", "", 0, "ready");
    while (!input_ended())
        each_entry(proc, try_program, NULL);
    end();
    return 0;
}

static void grab(const char *pid, void *context)
{
    (void)context;
    if (strspn(pid, "0123456789") == strlen(pid) && atoi(pid) != getpid() && ptrace(PTRACE_SEIZE, atoi(pid), NULL, NULL) == 0)
        tell("seized", pid, 0, "");
}

/* Trace whatever comes, and never let go of it: not even when it has ended. */
int trace_for_ever(int argc, char **argv)
{
    (void)argc, (void)argv;
    tell("trace", "", 0, "ready");
    while (!input_ended())
        each_entry(proc, grab, NULL);
    return 0;
}
