/*
 * Faults made on purpose, for tests: loaded into a program in front of the C library (LD_PRELOAD), this
 * moves the clocks that it sees and has its system calls fail, as the file says that FAULTS names. A test
 * writes that file while the program runs; inject.rs is its side of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The calls, in the order of `Call` in inject.rs. */
enum { POLL, RECVMMSG, RECV, ACCEPT, CONNECT, SEND, SENDMSG, SENDMMSG, WRITE, FSYNC, RENAME, OPEN_NULL, CLOCK, CALLS };

static struct control {
	_Atomic int64_t wall, monotonic; /* nanoseconds that the clocks are ahead */
	struct {
		_Atomic int32_t error;  /* errno */
		_Atomic int32_t times;  /* that it still fails; below zero, without end */
		_Atomic int64_t failed; /* how often it has */
	} calls[CALLS];
} *control;

/* A program that was stopped or whose clock was moved looks at it after this long, in milliseconds. */
#define WAIT 20

__attribute__((constructor)) static void begin(void) {
	const char *name = getenv("FAULTS");
	int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
	if (file < 0)
		return;
	void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (memory != MAP_FAILED)
		control = memory;
	close(file);
}

/* Whether this call is one that fails; errno is set then. */
static int fails(int call) {
	if (!control)
		return 0;
	int32_t times = control->calls[call].times;
	do {
		if (times == 0)
			return 0;
	} while (times > 0 && !atomic_compare_exchange_weak(&control->calls[call].times, &times, times - 1));
	control->calls[call].failed++;
	errno = control->calls[call].error;
	return 1;
}

/* `real` is the function of this name that would have been called without us. */
#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) \
		real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *time) {
	REAL(int, clock_gettime, clockid_t, struct timespec *);
	if (fails(CLOCK))
		return -1;
	int result = real(clock, time);
	if (result != 0 || !control)
		return result;
	int64_t ahead = 0;
	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		ahead = control->wall;
	else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME)
		ahead = control->monotonic;
	time->tv_sec += ahead / 1000000000;
	time->tv_nsec += ahead % 1000000000;
	if (time->tv_nsec < 0) {
		time->tv_nsec += 1000000000;
		time->tv_sec--;
	} else if (time->tv_nsec >= 1000000000) {
		time->tv_nsec -= 1000000000;
		time->tv_sec++;
	}
	return 0;
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *signals) {
	REAL(int, ppoll, struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	const struct timespec wait = { 0, WAIT * 1000000L };
	if (control && (!timeout || timeout->tv_sec || timeout->tv_nsec > wait.tv_nsec))
		timeout = &wait;
	return fails(POLL) ? -1 : real(fds, count, timeout, signals);
}

int recvmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
	REAL(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *);
	return fails(RECVMMSG) ? -1 : real(socket, messages, count, flags, timeout);
}

ssize_t recv(int socket, void *bytes, size_t length, int flags) {
	REAL(ssize_t, recv, int, void *, size_t, int);
	return fails(RECV) ? -1 : real(socket, bytes, length, flags);
}

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags) {
	REAL(int, accept4, int, struct sockaddr *, socklen_t *, int);
	return fails(ACCEPT) ? -1 : real(socket, address, length, flags);
}

/* Not to syslogd. */
int connect(int socket, const struct sockaddr *address, socklen_t length) {
	REAL(int, connect, int, const struct sockaddr *, socklen_t);
	return address->sa_family != AF_UNIX && fails(CONNECT) ? -1 : real(socket, address, length);
}

ssize_t send(int socket, const void *bytes, size_t length, int flags) {
	REAL(ssize_t, send, int, const void *, size_t, int);
	return fails(SEND) ? -1 : real(socket, bytes, length, flags);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
	REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
	return fails(SENDMSG) ? -1 : real(socket, message, flags);
}

int sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags) {
	REAL(int, sendmmsg, int, struct mmsghdr *, unsigned, int);
	return fails(SENDMMSG) ? -1 : real(socket, messages, count, flags);
}

/* To regular files alone, which the log of a test is not. */
ssize_t write(int file, const void *bytes, size_t length) {
	REAL(ssize_t, write, int, const void *, size_t);
	struct stat status;
	if (control && fstat(file, &status) == 0 && S_ISREG(status.st_mode) && fails(WRITE))
		return -1;
	return real(file, bytes, length);
}

int fsync(int file) {
	REAL(int, fsync, int);
	return fails(FSYNC) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
	REAL(int, rename, const char *, const char *);
	return fails(RENAME) ? -1 : real(from, to);
}

int open64(const char *path, int flags, ...) {
	REAL(int, open64, const char *, int, ...);
	va_list rest;
	va_start(rest, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	return strcmp(path, "/dev/null") == 0 && fails(OPEN_NULL) ? -1 : real(path, flags, mode);
}
