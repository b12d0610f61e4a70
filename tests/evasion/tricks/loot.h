/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The decoy is read here and sent there: what both sides need. */
#ifndef EVADE_LOOT_H
#define EVADE_LOOT_H

#include "evade.h"

static char loot[ROOM];
static size_t loot_len;

static inline void grab(void)
{
	int fd = must(open(at(DECOY), O_RDONLY), "open");

	loot_len = take(fd, loot);
	close(fd);
}

/* From here on this process's children are of another login. */
static inline void log_in_as(int uid)
{
	char text[16];
	int fd = must(open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC), "open loginuid");

	must(write(fd, text, (size_t)snprintf(text, sizeof(text), "%d", uid)), "write loginuid");
	close(fd);
}

#endif
