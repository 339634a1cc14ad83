/* Sockets that lead out of a container. */
#include "payload.h"
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

int socket_families(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        int family = atoi(argv[i]);
        const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW};
        for (size_t type = 0; type < COUNT(types); type++) {
            char on[64];
            snprintf(on, sizeof on, "%d:%d", family, types[type]);
            int fd = socket(family, types[type], 0);
            tell_result("socket", on, fd);
            if (fd >= 0)
                close(fd);
        }
    }
    return 0;
}

static void connect_to(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    if (length >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    tell_result("connect", name, connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)));
    close(fd);
}

/* All names that this network namespace shows, abstract or not. */
int unix_names(int argc, char **argv)
{
    static char text[1 << 16];
    (void)argc, (void)argv;
    int fd = open("/proc/net/unix", O_RDONLY);
    if (fd < 0 || slurp(fd, text, sizeof text) < 0) {
        tell("names", "/proc/net/unix", errno, "");
        return 0;
    }
    int count = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[200] = "";
        if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %199s", name) == 1 && strcmp(name, "Path")) {
            connect_to(name);
            count++;
        }
    }
    char value[32];
    snprintf(value, sizeof value, "%d", count);
    tell("names", "/proc/net/unix", 0, value);
    return 0;
}

/* Connect, say something, and see whether anybody answers or only closes. */
static const char *conversation(int fd)
{
    static const char hello[] = "\0\0\0\0\0\0\0\1\1\0";
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char answer[64];
    if (send(fd, hello, sizeof hello - 1, MSG_NOSIGNAL) < 0)
        return "closed";
    if (poll(&wait, 1, 3000) <= 0)
        return "silence";
    return recv(fd, answer, sizeof answer, 0) > 0 ? "answered" : "closed";
}

int vsock_ports(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        unsigned cid, port;
        if (sscanf(argv[i], "%u:%u", &cid, &port) != 2)
            return 64;
        struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        tell_result("socket", "vsock", fd);
        if (fd < 0)
            continue;
        struct timeval patience = {.tv_sec = 1};
        setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience);
        long connected = connect(fd, (struct sockaddr *)&address, sizeof address);
        tell("connect", argv[i], connected < 0 ? errno : 0, connected < 0 ? "" : conversation(fd));
        close(fd);
    }
    return 0;
}
