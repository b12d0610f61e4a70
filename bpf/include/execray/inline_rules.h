/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether the event in the record meets a rule, beyond doubt. Reads the record alone: what is tested is what is told.
 */
#ifndef EXECRAY_INLINE_RULES_H
#define EXECRAY_INLINE_RULES_H

#include "execray/gate.h"
#include "execray/inline_maps.h"

/* Where a path begins in a record, and how long it is: less than this together. */
#define ER_INLINE_AT (2 * ER_PATH_MAX - 1)

/* Whether the event's path is known beyond doubt; its flags are looked at before. */
static __always_inline bool er_inline_has_path(const struct er_scratch *scratch)
{
	const struct er_call *call = &scratch->call;
	__u32 at = call->path_at & ER_INLINE_AT;

	if (er_is_of_file(call)) {
		if (!scratch->record.file.ino)
			return false;
	} else if (call->event < ER_EVENT_RENAME || call->shape.name || !scratch->record.plain.ino) {
		return false;
	}
	return call->path_len && scratch->record.bytes[at] == '/';
}

/* Whether the bytes from there on are the text's. */
static __always_inline bool er_inline_same(const char *from, const struct er_inline_text *text)
{
	__u32 i;

	for (i = 0; i < ER_INLINE_TEXT / 8; i++) {
		__u64 word, left = text->len - 8 * i;

		if (8 * i >= text->len)
			break;
		word = ER_GATE_LOAD(from + 8 * i);
		if (left < 8)
			word &= ER_GATE_ANYBITS >> (8 * (8 - left) & 63);
		if (word != ER_GATE_LOAD(&text->bytes[8 * i]))
			return false;
	}
	return true;
}

/* Whether the event meets one of a rule's tests of texts: enum er_inline_met. Not static, so that it is verified once.
 */
__noinline int er_inline_text(__u32 index, __u32 which)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	const struct er_inline_text *text;
	__u32 at, size, len;

	if (!scratch || !plan)
		return 0;
	text = &plan->rule[index & (ER_INLINE_RULES - 1)].text[which & (ER_INLINE_TEXTS - 1)];
	if (text->part == ER_INLINE_COMM) {
		const char *comm = scratch->record.exec.task.comm;
		bool same = ER_GATE_LOAD(comm) == ER_GATE_LOAD(text->bytes) &&
			    ER_GATE_LOAD(comm + 8) == ER_GATE_LOAD(text->bytes + 8);

		return same != !!text->negate;
	}
	if (!er_inline_has_path(scratch)) /* an open that failed has none, and nobody knows one */
		return scratch->call.event == ER_EVENT_OPEN && !scratch->record.file.ino && !text->negate
			       ? ER_INLINE_NOT
			       : ER_INLINE_MAYBE;
	at = scratch->call.path_at;
	size = scratch->call.path_len;
	len = text->len;
	if (size < len || (text->part == ER_INLINE_EXACT && size != len))
		return text->negate;
	if (text->part == ER_INLINE_ENDS)
		at += size - len;
	barrier_var(at); /* checked as it is used */
	at &= ER_INLINE_AT;
	return er_inline_same(&scratch->record.bytes[at], text) != !!text->negate;
}

/* Whether the event meets a test of a number. One that it doesn't have meets nothing but what is negated; a result that
 * isn't known is one nevertheless. */
static __always_inline enum er_inline_met er_inline_number(const struct er_gate_work *work,
							   const struct er_inline_number *number)
{
	__u32 input = number->input & (ER_GATE_INPUTS - 1);
	__u64 value = work->number[input];
	bool met;

	if (!(work->known >> input & 1))
		return number->negate || number->input == ER_GATE_RET ? ER_INLINE_MAYBE : ER_INLINE_NOT;
	if (number->kind == ER_INLINE_RANGE)
		met = (__s64)value >= (__s64)number->low && (__s64)value <= (__s64)number->high;
	else if (number->kind == ER_INLINE_SAME)
		met = (value & number->low) == number->high;
	else
		return ER_INLINE_MAYBE;
	return met != !!number->negate ? ER_INLINE_YES : ER_INLINE_NOT;
}

/* Whether the event in the record meets a rule: enum er_inline_met. Not static, so that it is verified once. */
__noinline int er_inline_meets(__u32 index)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	struct er_gate_work *numbers = er_gate_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	const struct er_inline_rule *rule;
	int one, all = ER_INLINE_YES;
	__u32 i;

	if (!scratch || !numbers || !plan || !er_inline_mine(scratch, plan, index))
		return ER_INLINE_NOT;
	rule = &plan->rule[index & (ER_INLINE_RULES - 1)];
	for (i = 0; i < ER_INLINE_NUMBERS; i++) {
		if (i >= rule->numbers)
			break;
		one = er_inline_number(numbers, &rule->number[i]);
		if (one == ER_INLINE_NOT)
			return ER_INLINE_NOT;
		if (one != ER_INLINE_YES)
			all = ER_INLINE_MAYBE;
	}
	for (i = 0; i < ER_INLINE_TEXTS; i++) {
		if (i >= rule->texts)
			break;
		one = er_inline_text(index, i);
		if (one == ER_INLINE_NOT)
			return ER_INLINE_NOT;
		if (one != ER_INLINE_YES)
			all = ER_INLINE_MAYBE;
	}
	return all;
}

/* The numbers that rules ask for: those of the gate, all of them. */
static __always_inline void er_inline_collect(struct er_scratch *scratch, struct er_gate_work *work)
{
	__s64 ret = scratch->call.ret;
	bool is_id; /* setfsuid's is no result */

	work->event = scratch->call.event & (ER_GATE_CODES - 1);
	work->known = 0;
	is_id = work->event == ER_EVENT_SETUID && scratch->record.setuid.call == ER_CALL_SETFSUID;
	if (!is_id && (ret < ER_RESTARTS || ret > ER_RESTARTS + 4))
		er_gate_put(work, ER_GATE_RET, ret);
	er_gate_put(work, ER_GATE_UID, scratch->record.exec.task.uid);
	er_gate_put(work, ER_GATE_EUID, scratch->record.exec.task.euid);
	er_gate_fields(scratch, work);
}

#endif
