// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Begins a login of its own, as sshd would: `login UID PROGRAM ARGUMENTS`. What runs in it is one entry, whatever
 * sessions it makes. Ends when its last child has, with the status of the first.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC), status = 0, other;
	pid_t first;

	if (argc < 3 || fd < 0 || write(fd, argv[1], strlen(argv[1])) < 0) {
		perror("loginuid");
		return 4;
	}
	first = fork();
	if (!first) {
		setsid();
		execv(argv[2], argv + 2);
		_exit(127);
	}
	if (first < 0 || waitpid(first, &status, 0) < 0)
		return 4;
	while (wait(&other) > 0 || errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
