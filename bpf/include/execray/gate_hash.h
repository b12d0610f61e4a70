/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names as the gate's plan has them: hashes of paths, of what is in them, and of threads' names.
 * execray/gate/hashes.py. */
#ifndef EXECRAY_GATE_HASH_H
#define EXECRAY_GATE_HASH_H

#define ER_GATE_SEED	0x243F6A8885A308D3ULL
#define ER_GATE_FACTOR	0x9E3779B97F4A7C15ULL
#define ER_GATE_ANYBITS (~0ULL)

/* What a key is of; mixed into it last. Suffixes are 16 + their length. */
enum er_gate_tag {
	ER_GATE_EXACT = 1,
	ER_GATE_BELOW = 2, /* a directory above the file */
	ER_GATE_ANYWHERE = 3,
	ER_GATE_LEAF = 4,
	ER_GATE_NAMED = 5, /* the actor's comm */
	ER_GATE_SUFFIX = 16,
};

static __always_inline __u64 er_gate_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * ER_GATE_FACTOR;
	return hash << 29 | hash >> 35;
}

/* One of a name's words, without what stands behind the name. */
static __always_inline __u64 er_gate_word(__u64 hash, const char *name, __u32 len, __u32 begin)
{
	__u64 word = ER_GATE_LOAD(name + begin);

	if (len < begin + 8)
		word &= ER_GATE_ANYBITS >> (8 * (begin + 8 - len) & 63);
	return er_gate_mix(hash, word);
}

/* A name's hash: its length and its first 32 bytes. At least as many must be readable, whatever stands behind it. */
static __always_inline __u64 er_gate_name(const char *name, __u32 len)
{
	__u64 hash = er_gate_mix(ER_GATE_SEED, len);

	if (len > 0)
		hash = er_gate_word(hash, name, len, 0);
	if (len > 8)
		hash = er_gate_word(hash, name, len, 8);
	if (len > 16)
		hash = er_gate_word(hash, name, len, 16);
	if (len > 24)
		hash = er_gate_word(hash, name, len, 24);
	return hash;
}

#endif
