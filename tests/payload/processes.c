/* Processes: waiting, signalling whoever can be reached, multiplying. */
#include "payload.h"
#include <sys/mman.h>
#include <sys/prctl.h>

#define PIDFD_SEND_SIGNAL 424
#define PIDFD_OPEN 434

/* Say that the container runs; end when standard input does. */
int hold(int argc, char **argv)
{
    char byte;
    (void)argc, (void)argv;
    tell("hold", "", 0, "ready");
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}

/* E50: the parent of a container's first process is outside its pid namespace, and has the number 0 inside. */
int signal_games(int argc, char **argv)
{
    (void)argc, (void)argv;
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    char value[32];
    snprintf(value, sizeof value, "%d", getppid());
    tell("getppid", "", 0, value);
    tell_result("kill own group", "0", kill(0, SIGUSR1));
    tell_result("kill all", "-1", kill(-1, SIGUSR1));
    tell_result("pidfd_open", "parent", syscall(PIDFD_OPEN, getppid(), 0));
    for (int pid = 1; pid < 400; pid++) {
        int fd = (int)syscall(PIDFD_OPEN, pid, 0);
        if (fd < 0 || pid == getpid())
            continue;
        snprintf(value, sizeof value, "%d", pid);
        tell_result("pidfd_send_signal", value, syscall(PIDFD_SEND_SIGNAL, fd, SIGUSR1, NULL, 0));
        close(fd);
    }
    /* Children that end by the hundred, reaped by nobody in particular. */
    for (int i = 0; i < 200; i++)
        if (fork() == 0) {
            if (fork() == 0)
                _exit(0);
            _exit(0);
        }
    tell("children", "", 0, "ended");
    return 0;
}

int kill_all(int argc, char **argv)
{
    signal(SIGTERM, SIG_IGN);
    tell_result("kill", "-1", kill(-1, SIGTERM));
    for (int i = 0; i < argc; i++)
        if (atoi(argv[i]) != getpid())
            tell_result("kill", argv[i], kill(atoi(argv[i]), SIGTERM));
    return 0;
}

/* Fork until that fails, or LIMIT processes are there; then stay. */
int fork_bomb(int argc, char **argv)
{
    int limit = argc ? atoi(argv[0]) : 100000, made = 0, error = 0;
    while (made < limit) {
        pid_t pid = fork();
        if (pid < 0) {
            error = errno;
            break;
        }
        if (pid == 0)
            for (;;)
                pause();
        made++;
    }
    char value[32];
    snprintf(value, sizeof value, "%d", made);
    tell("fork", "", error, value);
    return hold(0, NULL);
}

/* Each process makes another and ends: the one to kill is always gone already. Their output is closed, so that nobody waits for it. */
int fork_for_ever(int argc, char **argv)
{
    (void)argc, (void)argv;
    tell("fork", "", 0, "ready");
    for (int chain = 0; chain < 4; chain++) {
        if (fork())
            continue;
        setsid();
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        for (;;)
            if (fork() > 0)
                _exit(0);
    }
    return hold(0, NULL);
}

int eat_memory(int argc, char **argv)
{
    size_t size = (size_t)(argc ? atoi(argv[0]) : 64) << 20;
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        tell_result("mmap", "", -1);
        return 1;
    }
    memset(memory, 1, size);
    tell("eat", "", 0, "eaten");
    return 0;
}

int flood(int argc, char **argv)
{
    static char block[1 << 16];
    (void)argc, (void)argv;
    memset(block, 'y', sizeof block);
    for (;;)
        if (write(1, block, sizeof block) < 0)
            return 0;
}

/* A program as a child of this one, so that set-user-ID and file capabilities get their chance. */
int run_as_child(int argc, char **argv)
{
    if (argc < 1)
        return 64;
    pid_t pid = fork();
    if (pid == 0) {
        execv(argv[0], argv);
        tell_result("execve", argv[0], -1);
        _exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* As a hook: a signal to the container's first process, whose number the state on standard input tells. */
int signal_state(int argc, char **argv)
{
    char text[1 << 16];
    if (argc != 1 || slurp(0, text, sizeof text) < 0)
        return 64;
    char *pid = strstr(text, "\"pid\":");
    return pid && kill(atoi(pid + 6), atoi(argv[0])) == 0 ? 0 : 1;
}

int stop_all(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (int pid = 2; pid < 1000; pid++)
        if (pid != getpid())
            kill(pid, SIGSTOP);
    return 0;
}

int sleep_long(int argc, char **argv)
{
    (void)argc, (void)argv;
    return (int)sleep(1000);
}

int sleep_a_little(int argc, char **argv)
{
    (void)argc, (void)argv;
    return usleep(300000);
}
