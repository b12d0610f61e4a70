// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A program that may read the decoy, as passwd may read the hashes: prints it, remembers it, or keeps it open as
 * descriptor 9.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char data[4096], *const where = data;
	ssize_t len;
	int fd = argc > 1 ? open(argv[argc - 1], O_RDONLY) : -1;

	if (fd < 0)
		return 1;
	if (!strcmp(argv[1], "--print")) {
		len = read(fd, data, sizeof(data));
		return len < 0 || write(1, data, (size_t)len) != len;
	}
	if (!strcmp(argv[1], "--remember")) {
		if (read(fd, data, sizeof(data)) < 0 || write(8, &where, sizeof(where)) < 0)
			return 1;
		pause();
	}
	if (dup2(fd, 9) < 0 || write(8, "x", 1) != 1)
		return 1;
	close(8);
	pause();
	return 0;
}
