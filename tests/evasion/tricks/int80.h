/* SPDX-License-Identifier: GPL-2.0-or-later */
/* System calls through the 32-bit entry, from a 64-bit program: their numbers are those of i386, their pointers 32
 * bits. */
#ifndef EVADE_INT80_H
#define EVADE_INT80_H

#include "evade.h"

/* i386 numbers */
enum {
	I386_OPEN = 5,
	I386_EXECVE = 11,
	I386_SETUID16 = 23,
	I386_PTRACE = 26,
	I386_SETREUID16 = 70,
	I386_SOCKETCALL = 102,
	I386_SETRESUID16 = 164,
	I386_SETUID = 213,
	I386_CONNECT = 362,
};

static inline long int80(long nr, long a, long b, long c, long d)
{
	long result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d)
		     : "memory", "r8", "r9", "r10", "r11");
	result = (int)result;
	if (result < 0 && result > -4096) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

/* Memory below 4 GiB with a copy of some bytes in it. */
static inline char *low_copy(const void *data, size_t len)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (low == MAP_FAILED)
		cant("mmap");
	return memcpy(low, data, len);
}

static inline long low(const char *text)
{
	return (long)low_copy(text, strlen(text) + 1);
}

#endif
