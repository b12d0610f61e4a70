// SPDX-License-Identifier: GPL-2.0-or-later
/* A program to be attacked: tells where its word lies, and says it whenever it is asked by a line. */
#include <stdio.h>

static volatile char word[9] = "innocent";

int main(void)
{
	printf("%p\n", (const void *)word);
	for (;;) {
		fflush(stdout);
		if (getchar() == EOF)
			return 0;
		printf("%.8s\n", (const char *)word);
	}
}
