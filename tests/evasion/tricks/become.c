// SPDX-License-Identifier: GPL-2.0-or-later
/* What an attacker leaves behind with the set-uid bit, or with a capability: makes a file as root. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;

	if (argc < 2 || (geteuid() != 0 && setuid(0) < 0))
		return 1;
	fd = open(argv[1], O_CREAT | O_WRONLY, 0600);
	return fd < 0;
}
