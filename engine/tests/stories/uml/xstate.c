/* Lets user-mode Linux 6.1 run on processors whose extended state (AMX) is larger than that kernel has room for.
 *
 * It saves and restores the part it knows, by PTRACE_GETREGSET and PTRACE_SETREGSET of NT_X86_XSTATE. The host takes
 * back nothing but the whole state (regset.c, xstateregs_set: EFAULT), so the part is laid over the whole here.
 * Loaded by LD_PRELOAD. The kernel calls ptrace from one thread. */

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_FIRST = 1, PEEK_LAST = 3, GET_REGISTER_SET = 0x4204, SET_REGISTER_SET = 0x4205, XSTATE = 0x202 };

static long set_xstate(long pid, const struct iovec *part)
{
	static char state[64 * 1024] __attribute__((aligned(64)));
	struct iovec whole = { state, sizeof state };

	if (syscall(SYS_ptrace, (long)GET_REGISTER_SET, pid, (long)XSTATE, &whole) < 0)
		return -1;
	memcpy(state, part->iov_base, part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len);
	return syscall(SYS_ptrace, (long)SET_REGISTER_SET, pid, (long)XSTATE, &whole);
}

long ptrace(int request, ...)
{
	va_list rest;
	long pid, address, peeked;
	void *data;

	va_start(rest, request);
	pid = va_arg(rest, int);
	address = va_arg(rest, long);
	data = va_arg(rest, void *);
	va_end(rest);
	if (request == SET_REGISTER_SET && address == XSTATE)
		return set_xstate(pid, data);
	if (request < PEEK_FIRST || request > PEEK_LAST)
		return syscall(SYS_ptrace, (long)request, pid, address, data);
	/* The system call stores what it peeks, the function returns it. */
	if (syscall(SYS_ptrace, (long)request, pid, address, &peeked) < 0)
		return -1;
	errno = 0;
	return peeked;
}
