/* /usr/lib/innkeeper-oci/innkeeper-oci: starts the frozen runtime command from a copy of its program
 * that nobody can write.
 *
 * A container can reach the program file of a process that is about to become its own, through
 * /proc/PID/exe, and could write to it later (CVE-2019-5736): so what is executed is a sealed
 * memfd. PyInstaller's bootloader then finds what belongs to the program by argv[0]; the variables
 * below keep it from executing itself once more, and LD_LIBRARY_PATH names the libraries that came
 * along. The program takes all of them out of its environment at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

static int fail(const char *what)
{
	fprintf(stderr, "innkeeper-oci: %s: %s\n", what, strerror(errno));
	return 1;
}

static int make_memory(void)
{
	int fd = memfd_create("innkeeper-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	/* before Linux 6.3 every memfd can be executed, and the flag is unknown */
	return fd < 0 && errno == EINVAL ? memfd_create("innkeeper-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

int main(int argc, char **argv)
{
	char folder[PATH_MAX], program[PATH_MAX + 16], libraries[PATH_MAX + 16];
	ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
	int source, memory;

	/* a standard stream that the caller closed would be what is opened next */
	do {
		source = open("/dev/null", O_RDWR);
	} while (source >= 0 && source <= 2);
	close(source);
	if (length < 0)
		return fail("/proc/self/exe");
	folder[length] = 0;
	*strrchr(folder, '/') = 0;
	snprintf(program, sizeof program, "%s/program", folder);
	snprintf(libraries, sizeof libraries, "%s/_internal", folder);

	source = open(program, O_RDONLY | O_CLOEXEC);
	if (source < 0)
		return fail(program);
	memory = make_memory();
	if (memory < 0)
		return fail("memfd_create");
	for (;;) {
		ssize_t copied = sendfile(memory, source, NULL, 1 << 30);

		if (copied == 0)
			break;
		if (copied < 0 && errno != EINTR)
			return fail("sendfile");
	}
	close(source);
	if (fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return fail("F_ADD_SEALS");

	if (setenv("LD_LIBRARY_PATH", libraries, 1) || setenv("_PYI_ARCHIVE_FILE", program, 1) || setenv("_PYI_PARENT_PROCESS_LEVEL", "-1", 1))
		return fail("setenv");
	if (argc > 0)
		argv[0] = program;
	fexecve(memory, argv, environ);
	return fail(program);
}
