/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a program gets into the scratch folder, and how it is run. */
#ifndef EVADE_DROP_H
#define EVADE_DROP_H

#include "evade.h"

static inline void copy_into(int to, const char *from)
{
	static char data[1 << 20];
	int fd = must(open(from, O_RDONLY | O_CLOEXEC), "open");
	ssize_t len;

	while ((len = must(read(fd, data, sizeof(data)), "read")) > 0)
		must(write(to, data, (size_t)len), "write");
	close(fd);
}

/* Writes the payload where it has no business to be, and returns its path. */
static inline char *drop_as(char *path, const char *what)
{
	int fd = must(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0700), "create");

	copy_into(fd, what);
	close(fd);
	return path;
}

static inline char *drop(void)
{
	return drop_as(own("scratch"), at("bin/payload"));
}

static inline char *drop_script(void)
{
	return drop_as(own("scratch"), at("bin/payload.sh"));
}

static inline void run(const char *path)
{
	execl(path, path, NULL);
	cant("exec");
}

#endif
