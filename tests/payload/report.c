/* One line of JSON a result; a line is one write, so that several processes can share a pipe. */
#include "payload.h"
#include <dirent.h>
#include <poll.h>

#define LINE_MAX_ 4000 /* below PIPE_BUF, whatever is escaped */

static size_t quote(char *out, size_t room, const char *text)
{
    size_t used = 0;
    out[used++] = '"';
    for (; *text && used + 8 < room; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[used++] = '\\';
            out[used++] = (char)c;
        } else if (c < 0x20 || c >= 0x7f) {
            used += (size_t)snprintf(out + used, room - used, "\\u%04x", c);
        } else {
            out[used++] = (char)c;
        }
    }
    out[used++] = '"';
    return used;
}

const char *error_name(int error)
{
    const char *name = strerrorname_np(error);
    return error == 0 ? "ok" : name ? name : "unknown";
}

void tell(const char *try, const char *on, int error, const char *value)
{
    char line[LINE_MAX_];
    size_t used = 0;
    const char *keys[] = {"{\"try\": ", ", \"on\": ", ", \"answer\": ", ", \"value\": "};
    const char *texts[] = {try, on, error_name(error), value ? value : ""};
    const size_t rooms[] = {200, 1000, 100, 2500};
    for (size_t i = 0; i < COUNT(keys); i++) {
        size_t length = strlen(keys[i]);
        memcpy(line + used, keys[i], length);
        used += length;
        used += quote(line + used, rooms[i], texts[i]);
    }
    line[used++] = '}';
    line[used++] = '\n';
    for (size_t done = 0; done < used;) {
        ssize_t written = write(1, line + done, used - done);
        if (written <= 0)
            _exit(70);
        done += (size_t)written;
    }
}

void tell_result(const char *try, const char *on, long result)
{
    tell(try, on, result < 0 ? errno : 0, "");
}

ssize_t slurp(int fd, char *buffer, size_t size)
{
    size_t used = 0;
    while (used + 1 < size) {
        ssize_t got = read(fd, buffer + used, size - 1 - used);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        used += (size_t)got;
    }
    buffer[used] = 0;
    for (size_t i = 0; i < used; i++)
        if (buffer[i] == 0)
            buffer[i] = '\n';
    return (ssize_t)used;
}

int each_entry(const char *directory, void (*use)(const char *name, void *context), void *context)
{
    DIR *stream = opendir(directory);
    if (!stream)
        return -1;
    struct dirent *entry;
    while ((entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            use(entry->d_name, context);
    closedir(stream);
    return 0;
}

int input_ended(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}
