/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An address as one number, for ranges of addresses. execray/gate/addresses.py says the same. */
#ifndef EXECRAY_GATE_ADDRESS_H
#define EXECRAY_GATE_ADDRESS_H

#define ER_GATE_V4_MAPPED 0xffff00000000ULL
#define ER_GATE_ODD_PLACE (1ULL << 48)
#define ER_GATE_SIGN	  (1ULL << 63)

/*
 * Where an address of 128 bits stands: its upper half, but of ::/80, which has the host itself and the IPv4 addresses
 * (as ::ffff:a.b.c.d), its lower half. The reserved addresses between those two share one place. The order is that of
 * addresses; numbers are compared with a sign, so its bit is turned around.
 */
static __always_inline __u64 er_gate_place(__u64 upper, __u64 lower)
{
	__u64 place = upper ? upper : lower;

	if (upper ? upper < ER_GATE_ODD_PLACE : lower > ER_GATE_ODD_PLACE)
		place = ER_GATE_ODD_PLACE;
	return place ^ ER_GATE_SIGN;
}

#endif
