/* Keys in the kernel's keyrings (keyrings(7)). */
#include "payload.h"
#include <linux/keyctl.h>

static const struct {
    const char *name;
    int ring;
} RINGS[] = {{"session", KEY_SPEC_SESSION_KEYRING}, {"process", KEY_SPEC_PROCESS_KEYRING}};

int add_key(int argc, char **argv)
{
    if (argc != 1)
        return 64;
    for (size_t i = 0; i < COUNT(RINGS); i++) {
        char value[32] = "";
        long serial = syscall(SYS_add_key, "user", "canary", argv[0], strlen(argv[0]), RINGS[i].ring);
        if (serial > 0)
            snprintf(value, sizeof value, "%ld", serial);
        tell("add_key", RINGS[i].name, serial < 0 ? errno : 0, value);
    }
    return hold(0, NULL);
}

int read_key(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        char text[256] = "";
        long length = syscall(SYS_keyctl, KEYCTL_READ, atoi(argv[i]), text, sizeof text - 1);
        tell("KEYCTL_READ", argv[i], length < 0 ? errno : 0, text);
        tell_result("KEYCTL_LINK", argv[i], syscall(SYS_keyctl, KEYCTL_LINK, atoi(argv[i]), KEY_SPEC_SESSION_KEYRING));
        tell_result("KEYCTL_SETPERM", argv[i], syscall(SYS_keyctl, KEYCTL_SETPERM, atoi(argv[i]), 0x3f3f3f3f));
    }
    long serial = syscall(SYS_request_key, "user", "canary", NULL, 0);
    tell_result("request_key", "canary", serial);
    return 0;
}
