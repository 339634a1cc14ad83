/* The guest's /sbin/init: starts the frozen agent in one exec, in the process that the kernel made.
 *
 * PyInstaller's bootloader executes itself a second time to set LD_LIBRARY_PATH, unless two
 * variables tell it that this was done. Setting them here saves an exec and keeps LD_LIBRARY_PATH
 * out of every container's environment; the libraries are found through /etc/ld.so.cache instead.
 * `INNKEEPER_START=plain` on the kernel's command line starts it the normal way.
 *
 * No libc: this is the first page the guest executes. Freestanding, static, x86-64 and aarch64.
 */

#define AGENT "/usr/lib/innkeeper/agent"
#define MAX_ENV 64

static long syscall3(long number, long a, long b, long c)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#endif
}

#if defined(__x86_64__)
enum { SYS_write = 1, SYS_execve = 59, SYS_exit = 60 };
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
#elif defined(__aarch64__)
enum { SYS_write = 64, SYS_execve = 221, SYS_exit = 93 };
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x0, sp\n\tbl start\n");
#endif

static int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* `stack` is what the kernel left: argc, argv, 0, envp, 0. The arguments are the words of the kernel's command line that nobody
 * knew; the agent reads /proc/cmdline itself, so they are not passed on. */
__attribute__((used)) void start(long *stack)
{
	char **envp = (char **)(stack + 1 + stack[0] + 1);
	char *argv[] = {AGENT, 0};
	char *env[MAX_ENV + 3];
	int count = 0, plain = 0;

	for (char **word = envp; *word && count < MAX_ENV; word++) {
		if (equal(*word, "INNKEEPER_START=plain"))
			plain = 1;
		env[count++] = *word;
	}
	if (!plain) {
		env[count++] = "_PYI_ARCHIVE_FILE=" AGENT;
		env[count++] = "_PYI_PARENT_PROCESS_LEVEL=-1";
	}
	env[count] = 0;
	syscall3(SYS_execve, (long)AGENT, (long)argv, (long)env);
	static const char message[] = "init: cannot execute " AGENT "\n";
	syscall3(SYS_write, 2, (long)message, sizeof message - 1);
	syscall3(SYS_exit, 127, 0, 0);
	__builtin_unreachable();
}
