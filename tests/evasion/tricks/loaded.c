// SPDX-License-Identifier: GPL-2.0-or-later
/* A library that is dropped and loaded into a program of the system's: says that its code ran. */
#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void loaded(void)
{
	const char *fd = getenv("EVADE_REPORT");

	if (fd)
		dprintf(atoi(fd), "ran\n");
}
