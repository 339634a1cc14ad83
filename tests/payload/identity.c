/* Who this process is, and what it was given. */
#include "payload.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>

extern char **environ;

static void tell_hex(const char *what, unsigned long long mask)
{
    char value[32];
    snprintf(value, sizeof value, "%llx", mask);
    tell("identity", what, 0, value);
}

static unsigned long long probed(int option, int argument)
{
    unsigned long long mask = 0;
    for (int capability = 0; capability < 64; capability++) {
        int held = argument < 0 ? prctl(option, capability, 0, 0, 0) : prctl(option, argument, capability, 0, 0);
        if (held == 1)
            mask |= 1ULL << capability;
    }
    return mask;
}

int identity(int argc, char **argv)
{
    (void)argc, (void)argv;
    char value[VALUE_MAX];
    uid_t real, effective, saved;
    getresuid(&real, &effective, &saved);
    snprintf(value, sizeof value, "%u %u %u", real, effective, saved);
    tell("identity", "uid", 0, value);
    gid_t groups[3];
    getresgid(&groups[0], &groups[1], &groups[2]);
    snprintf(value, sizeof value, "%u %u %u", groups[0], groups[1], groups[2]);
    tell("identity", "gid", 0, value);
    gid_t others[1024];
    int count = getgroups(COUNT(others), others);
    size_t used = 0;
    value[0] = 0;
    for (int i = 0; i < count && used + 16 < sizeof value; i++)
        used += (size_t)snprintf(value + used, sizeof value - used, "%s%u", i ? " " : "", others[i]);
    tell("identity", "groups", count < 0 ? errno : 0, value);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    syscall(SYS_capget, &header, data);
    tell_hex("effective", data[0].effective | (unsigned long long)data[1].effective << 32);
    tell_hex("permitted", data[0].permitted | (unsigned long long)data[1].permitted << 32);
    tell_hex("inheritable", data[0].inheritable | (unsigned long long)data[1].inheritable << 32);
    tell_hex("bounding", probed(PR_CAPBSET_READ, -1));
    tell_hex("ambient", probed(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET));
    snprintf(value, sizeof value, "%d", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    tell("identity", "no_new_privs", 0, value);
    return 0;
}

/* Lines of /proc/self/status, without the interpretation of any library. */
int status_lines(int argc, char **argv)
{
    char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    if (fd < 0 || slurp(fd, text, sizeof text) < 0) {
        tell("status", "/proc/self/status", errno, "");
        return 1;
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = 0;
        for (int i = 0; i < argc; i++)
            if (strcmp(line, argv[i]) == 0)
                tell("status", line, 0, colon + 1 + strspn(colon + 1, "\t "));
    }
    return 0;
}

static void tell_descriptor(const char *name, void *context)
{
    char path[300], target[VALUE_MAX];
    (void)context;
    snprintf(path, sizeof path, "/proc/self/fd/%s", name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = 0;
    tell("descriptor", name, length < 0 ? errno : 0, target);
}

int descriptors(int argc, char **argv)
{
    (void)argc, (void)argv;
    return each_entry("/proc/self/fd", tell_descriptor, NULL) ? 1 : 0;
}

int environment(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (char **entry = environ; *entry; entry++)
        tell("environment", "", 0, *entry);
    return 0;
}
