/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate's decision: whether an event may meet a step of a loaded policy. Compiled three ways: into the hooks, into a
 * program for tests (tests/support/gate), and natively. Who includes this says what a map look-up is: er_gate_work()
 * for the memory of one decision, er_gate_plan(half) for a plan, er_gate_cell() for what has begun in a process,
 * er_gate_mark() for whose calls need a look at that.
 *
 * It may let too much pass, never too little: what isn't known contradicts no bit.
 */
#ifndef EXECRAY_GATE_CORE_H
#define EXECRAY_GATE_CORE_H

#include "execray/gate_begun.h"
#include "execray/gate_hash.h"

static __always_inline bool er_gate_may_be(const struct er_gate *plan, __u64 key)
{
	__u64 bits = 1ULL << (key & 63) | 1ULL << (key >> 6 & 63);

	return (plan->bloom[key >> 54] & bits) == bits;
}

/* The row of a key; 0 for one that no step asks for. */
static __always_inline __u32 er_gate_row_of(const struct er_gate *plan, __u64 key)
{
	__u32 bucket = key >> 52, at = plan->bucket[bucket], end = plan->bucket[bucket + 1], i;

	for (i = 0; i < ER_GATE_BUCKET; i++) {
		__u32 here = (at + i) & (ER_GATE_KEYS - 1);

		if (at + i >= end)
			break;
		if (plan->key[here] == key)
			return plan->key_row[here] & (ER_GATE_ROWS - 1);
	}
	return 0;
}

/*
 * One of the path's keys is perhaps one of the plan's; or the path has a row by something else. Not static, so that it
 * is verified once; few events come here.
 */
__noinline int er_gate_hit(__u64 key, __u32 by_row)
{
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	const struct er_gate_code *code;
	const struct er_gate_row *row;
	__u32 index, from, to, i;

	if (!plan)
		return 0;
	index = by_row ? by_row & (ER_GATE_ROWS - 1) : er_gate_row_of(plan, key);
	if (!index)
		return 0;
	code = &plan->code[work->event & (ER_GATE_CODES - 1)];
	row = &plan->row[index];
	from = code->first_word;
	to = code->end_word;
	for (i = 0; i < ER_GATE_WORDS; i++) {
		__u32 word = (from + i) & (ER_GATE_WORDS - 1);

		if (from + i >= to)
			break;
		work->hit[word] = work->hits ? work->hit[word] | row->word[word] : row->word[word];
	}
	work->hits++;
	return 0;
}

static __always_inline void er_gate_try(const struct er_gate *plan, __u64 key)
{
	if (er_gate_may_be(plan, key))
		er_gate_hit(key, 0);
}

/* The last bytes of the path, zeros in front of them. */
static __always_inline void er_gate_suffixes(const struct er_gate *plan, struct er_gate_work *work)
{
	__u32 i;

	for (i = 0; i < ER_GATE_SUFFIXES; i++) {
		__u32 len = plan->suffix[i];
		__u64 low = 0, high = work->tail[1];

		if (!len || len > 16)
			break;
		if (len > work->size)
			continue;
		if (len > 8)
			low = work->tail[0] & ER_GATE_ANYBITS << (8 * (16 - len) & 63);
		else
			high &= ER_GATE_ANYBITS << (8 * (8 - len) & 63);
		er_gate_try(plan, er_gate_mix(er_gate_mix(er_gate_mix(ER_GATE_SEED, low), high), ER_GATE_SUFFIX + len));
	}
}

/* All keys of a path. */
static __always_inline void er_gate_keys(const struct er_gate *plan, struct er_gate_work *work)
{
	__u64 chain = ER_GATE_SEED, last = 0;
	__u32 i;

	for (i = 0; i < ER_GATE_DEPTH; i++) {
		if (i >= work->count)
			break;
		last = work->component[i];
		er_gate_try(plan, er_gate_mix(chain, ER_GATE_BELOW));
		er_gate_try(plan, er_gate_mix(last, ER_GATE_ANYWHERE));
		chain = er_gate_mix(chain, last);
	}
	er_gate_try(plan, er_gate_mix(chain, ER_GATE_EXACT));
	if (work->count)
		er_gate_try(plan, er_gate_mix(last, ER_GATE_LEAF));
	er_gate_suffixes(plan, work);
}

/* Notes a row that the event must be in. Returns false where it has no bit. */
static __always_inline bool er_gate_choose(struct er_gate_work *work, __u32 row)
{
	__u32 at;

	ER_GATE_BARRIER(); /* or the number is kept in a register, where the verifier follows each of its values */
	at = work->rows;
	if (at < ER_GATE_CHOSEN) {
		work->row[at] = row & (ER_GATE_ROWS - 1);
		work->rows = at + 1;
	}
	return row != 0;
}

/* Which rows a number's value chooses. Returns false where one has no bit. */
static __always_inline bool er_gate_classify(struct er_gate_work *work, const struct er_gate_number *number,
					     __u64 value)
{
	__u32 count = number->bounds, i;

	for (i = 0; i < ER_GATE_BOUNDS; i++) {
		if (i >= count)
			break;
		if (number->kind == ER_GATE_BITS) {
			if (!er_gate_choose(work, number->rows + 2 * i + !!(value & number->bound[i])))
				return false;
		} else if ((__s64)number->bound[i] > (__s64)value) {
			break;
		}
	}
	return number->kind != ER_GATE_RANGES || er_gate_choose(work, number->rows + i);
}

static __always_inline bool er_gate_numbers(struct er_gate_work *work, const struct er_gate_code *code)
{
	__u32 i;

	for (i = 0; i < ER_GATE_NUMBERS; i++) {
		const struct er_gate_number *number = &code->number[i];
		__u32 input = number->input & (ER_GATE_INPUTS - 1);

		if (i >= code->numbers)
			break;
		if ((work->known >> input & 1) && !er_gate_classify(work, number, work->number[input]))
			return false;
	}
	return true;
}

/* The bits that the path doesn't contradict, but for those that it has by its keys. */
static __always_inline __u32 er_gate_base(const struct er_gate_code *code, __u32 path)
{
	switch (path) {
	case ER_GATE_KNOWN: return code->path_free;
	case ER_GATE_NAMELESS: return code->path_nameless;
	case ER_GATE_MISSING: return code->path_missing;
	default: return code->all;
	}
}

static const __u8 er_gate_places[64] = {
	0,  1,	48, 2,	57, 49, 28, 3,	61, 58, 50, 42, 38, 29, 17, 4,	62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,	13, 8,	7,  6,
};

/* The place of the lowest bit, of which there is one: there is no instruction for it. */
static __always_inline __u32 er_gate_lowest(__u64 bits)
{
	return er_gate_places[((bits & -bits) * 0x03f79d71b4cb0a89ULL) >> 58];
}

/* Whether one of these bits of a word is left; leaves those that are. Not static, as above. */
__noinline int er_gate_left(__u32 at, __u64 bits)
{
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	const struct er_gate_code *code;
	__u32 word = at & (ER_GATE_WORDS - 1), i;

	if (!plan)
		return 1;
	code = &plan->code[work->event & (ER_GATE_CODES - 1)];
	bits &= plan->row[code->all & (ER_GATE_ROWS - 1)].word[word];
	if (work->comm_row != 1)
		bits &= plan->row[code->comm_free & (ER_GATE_ROWS - 1)].word[word] |
			plan->row[work->comm_row & (ER_GATE_ROWS - 1)].word[word];
	for (i = 0; i < ER_GATE_CHOSEN; i++) {
		if (!bits || i >= work->rows)
			break;
		bits &= plan->row[work->row[i] & (ER_GATE_ROWS - 1)].word[word];
	}
	work->left = bits;
	return bits != 0;
}

/*
 * Whether one of the bits that are left of a word, of which there is one, is awaited. Those that are first begin what
 * they begin; where one goes on with what has begun, somebody may have to act. Not static, so that it is verified once
 * and not for each word.
 */
__noinline int er_gate_meets(__u32 at)
{
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	__u32 word = at & (ER_GATE_WORDS - 1), i;
	__u64 bits, first;
	int passes;

	if (!plan)
		return 1;
	bits = work->left;
	first = bits & plan->row[plan->first & (ER_GATE_ROWS - 1)].word[word];
	bits &= ~first;
	passes = first != 0;
	for (i = 0; i < ER_GATE_LOOKS; i++) { /* before the event itself begins something */
		if (!bits)
			break;
		if (er_gate_awaits(word * 64 + er_gate_lowest(bits)))
			break;
		bits &= bits - 1;
	}
	if (bits)
		passes = work->urgent = 1;
	for (i = 0; i < 64 && first; i++) {
		er_gate_begin(word * 64 + er_gate_lowest(first));
		first &= first - 1;
	}
	return passes;
}

/* One of the rows that the numbers chose; that of all bits where there are fewer. */
static __always_inline __u32 er_gate_chosen(const struct er_gate_work *work, __u32 at)
{
	return work->rows > at ? work->row[at] & (ER_GATE_ROWS - 1) : 1;
}

/* The words of the event in which a bit may be left. Most paths have no key, and no more bits than ask for none: for
 * these it is known beforehand in which words a number leaves one. */
static __always_inline __u64 er_gate_words(const struct er_gate *plan, const struct er_gate_work *work,
					   const struct er_gate_code *code, __u32 base)
{
	__u32 from = code->first_word & (ER_GATE_WORDS - 1), count = code->end_word - code->first_word;
	__u64 words = ER_GATE_ANYBITS;

	if (count < ER_GATE_WORDS)
		words = (1ULL << (count & 63)) - 1;
	words <<= from;
	if (!work->hits && base == code->path_free)
		words &= plan->free_words[er_gate_chosen(work, 0)] & plan->free_words[er_gate_chosen(work, 1)];
	return words;
}

/*
 * Whether a bit is left in all, path, name and numbers, that is awaited. The rows of two numbers here, more than that
 * word by word.
 */
static __always_inline bool er_gate_any(const struct er_gate *plan, struct er_gate_work *work,
					const struct er_gate_code *code, __u32 base)
{
	const struct er_gate_row *row = &plan->row[base & (ER_GATE_ROWS - 1)];
	const struct er_gate_row *one = &plan->row[er_gate_chosen(work, 0)];
	const struct er_gate_row *other = &plan->row[er_gate_chosen(work, 1)];
	__u64 words = er_gate_words(plan, work, code, base);
	__u32 i;

	work->pass = work->urgent = 0;
	for (i = 0; i < ER_GATE_WORDS; i++) {
		__u32 word;
		__u64 bits;

		ER_GATE_KEEP(words); /* or the loop falls into its head, which Linux 6.1 refuses */
		if (!words)
			break;
		word = er_gate_lowest(words) & (ER_GATE_WORDS - 1);
		words &= words - 1;
		bits = row->word[word];
		if (work->hits)
			bits |= work->hit[word];
		bits &= one->word[word] & other->word[word];
		if (bits && er_gate_left(word, bits) && er_gate_meets(word)) {
			work->pass = 1;
			if (!code->begins && work->urgent) /* or all that begins must be noted */
				break;
		}
	}
	return work->pass;
}

/* Whether some step can want the event, by all that is tested. */
static __always_inline bool er_gate_weigh(const struct er_gate *plan, struct er_gate_work *work,
					  const struct er_gate_code *code)
{
	__u32 base = er_gate_base(code, work->path);

	if (code->first_word >= code->end_word)
		return false;
	work->rows = work->hits = 0;
	work->comm_row = 1;
	if (code->numbers && !er_gate_numbers(work, code))
		return false;
	if (work->path == ER_GATE_KNOWN)
		er_gate_keys(plan, work);
	if (work->named)
		er_gate_hit(0, work->named);
	if (!base && !work->hits)
		return false;
	if (work->known >> ER_GATE_COMM & 1) {
		__u64 key = er_gate_mix(er_gate_mix(ER_GATE_SEED, work->comm[0]), work->comm[1]);

		key = er_gate_mix(key, ER_GATE_NAMED);
		work->comm_row = er_gate_may_be(plan, key) ? er_gate_row_of(plan, key) : 0;
	}
	return er_gate_any(plan, work, code, base);
}

/*
 * The decision on what stands in the memory. Returns false for an event that no step can want. Of an event that passes
 * anyway only what begins with it is asked.
 */
static __always_inline bool er_gate_decide(const struct er_gate *plan, struct er_gate_work *work)
{
	const struct er_gate_code *code = &plan->code[work->event & (ER_GATE_CODES - 1)];

	bool pass;

	if ((plan->open >> (work->event & 63) & 1) && !code->begins)
		return true;
	pass = er_gate_weigh(plan, work, code);
	ER_GATE_BARRIER(); /* or what is asked twice is kept, and the verifier looks at all between once for each value
			    */
	return pass || (plan->open >> (work->event & 63) & 1);
}

#endif
