// SPDX-License-Identifier: GPL-2.0-or-later
/* The places of addresses as an ordinary program: reads pairs of halves, of 64 bits each, and prints a number for each.
 */
#include <inttypes.h>
#include <linux/types.h>
#include <stdio.h>

#include "execray/gate_address.h"

int main(void)
{
	__u64 halves[2];

	while (fread(halves, sizeof(halves), 1, stdin) == 1)
		printf("%" PRId64 "\n", (int64_t)er_gate_place(halves[0], halves[1]));
	return 0;
}
