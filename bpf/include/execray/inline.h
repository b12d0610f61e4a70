/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kills in the kernel. Asked when a system call's record is whole and about to be sent: whether it meets, beyond doubt,
 * the last step of a policy that kills. Everything that isn't sure is left to user space, which gets the record anyway.
 */
#ifndef EXECRAY_INLINE_H
#define EXECRAY_INLINE_H

#include "execray/inline_cells.h"
#include "execray/inline_rules.h"
#include "execray/inline_victims.h"

/* include/linux/sched/signal.h: somebody has ended the process already */
#define ER_SIGNAL_GROUP_EXIT 4

/* What a record may have and still be sure: text that no rule asks for was cut, or the gate has an opinion. */
#define ER_INLINE_HARMLESS (ER_F_CONTENT_TRUNCATED | ER_F_RAWPATH_TRUNCATED | ER_F_GATE_DROP)

/* Sends so many bytes; the bound is checked as it is used. Returns whether there was room for them. */
static __always_inline bool er_inline_output(struct er_scratch *scratch, __u32 total)
{
	barrier_var(total);
	if (total > ER_RECORD_MAX)
		return false;
	return er_send_scratch(scratch, total);
}

/*
 * Whether nothing is known that could keep the process, once it is killed, from its end: another thread in the midst of
 * something, or a tracer that wants to be told first.
 */
static __always_inline bool er_inline_ends_at_once(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, signal, live.counter) == 1 && !BPF_CORE_READ(task, ptrace);
}

/*
 * Sends the record of a kill. To wake the reader takes as long as all else that is done for the kill, and the process
 * runs no further for it to be read: its end does that (er_exit), some 30 us from here. Should that be held up, tracerd
 * looks by itself (tracerd/pacing.py).
 */
static __always_inline bool er_inline_put_last(struct er_scratch *scratch, __u32 total)
{
	struct er_header *header = &scratch->record.exec.hdr;

	if (!er_inline_ends_at_once())
		return er_inline_output(scratch, total);
	header->kind |= ER_KIND_URGENT;
	barrier_var(total);
	return total <= ER_RECORD_MAX && er_put(header, total, BPF_RB_NO_WAKEUP);
}

/* Whether the process is about to end anyway: its other threads' last calls are worth no kill. */
static __always_inline bool er_inline_ending(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, signal, flags) & ER_SIGNAL_GROUP_EXIT;
}

/* Looks at one rule: notes whether the event meets it, and whether that completes its policy. Not static, to be
 * verified once. */
__noinline int er_inline_look(__u32 index)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	__u32 at = index & (ER_INLINE_RULES - 1);
	const struct er_inline_rule *rule;
	__u64 since, now;

	if (!scratch || !work || !plan || !er_inline_mine(scratch, plan, at))
		return 0;
	rule = &plan->rule[at];
	now = scratch->record.exec.hdr.time_ns;
	work->met[at] = er_inline_meets(at);
	if (work->met[at] != ER_INLINE_YES || rule->step + 1 != rule->steps)
		return 0;
	since = er_inline_since(scratch, plan, rule);
	if (since && (!rule->step || now - since + ER_INLINE_SLACK_NS <= rule->within_ns)) {
		work->met[at] = ER_INLINE_FINISHES;
		work->ends++;
	}
	return 0;
}

/* Takes a kill for a rule that ends its policy, where that one has any left. Not static, to be verified once. */
__noinline int er_inline_charge(__u32 index)
{
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	__u32 at = index & (ER_INLINE_RULES - 1), slot;
	int token;

	if (!work || !plan || work->met[at] != ER_INLINE_FINISHES)
		return 0;
	if (work->joined) {
		work->found = plan->rule[at].policy == work->joined ? at + 1 : 0;
		return work->found;
	}
	slot = plan->rule[at].slot;
	if (work->refused == slot + 1)
		return 0;
	token = er_inline_take(slot);
	if (token < 0) {
		work->refused = slot + 1;
		return 0;
	}
	work->token = token;
	work->found = at + 1;
	return 1;
}

/* User space has been sent an event: if it met this rule, its policy has come as far. Not static, to be verified once.
 */
__noinline int er_inline_remember(__u32 index)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	__u32 at = index & (ER_INLINE_RULES - 1);
	const struct er_inline_rule *rule;

	if (!scratch || !work || !plan || !er_inline_mine(scratch, plan, at))
		return 0;
	rule = &plan->rule[at];
	if (rule->steps <= 1 || work->met[at] == ER_INLINE_NOT)
		return 0;
	if (rule->step + 1 == rule->steps)
		er_inline_forget(scratch, rule);
	else if (work->met[at] == ER_INLINE_YES)
		er_inline_advance(scratch, plan, rule, &work->cell);
	return 0;
}

/* Goes through the rules of the event at hand, and does one thing with each. */
__noinline int er_inline_each(__u32 what)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	__u32 code, first, end, i;

	if (!scratch || !work || !plan)
		return 0;
	code = scratch->call.event & (ER_INLINE_CODES - 1);
	first = plan->first[code];
	end = plan->end[code];
	for (i = 0; i < ER_INLINE_RULES; i++) {
		if (first + i >= end)
			break;
		if (what == ER_INLINE_LOOK)
			er_inline_look(first + i);
		else if (what == ER_INLINE_REMEMBER)
			er_inline_remember(first + i);
		else if (er_inline_charge(first + i))
			break;
	}
	return 0;
}

/*
 * Sends the record of an event that completes a policy, and kills: in this order, and not without evidence. Returns
 * false where no kill is left for this minute, and nothing was sent.
 *
 * Of threads that come here at once the first pays. Another's record says the same if that is so by then: user space
 * takes what comes first for the end of the sequence. What it says is true even if the first finds no room for its own
 * record: the signal is sent by both.
 */
static __always_inline bool er_inline_strike(struct er_scratch *scratch, struct er_inline_state *state,
					     struct er_inline_work *work, __u32 total)
{
	const struct er_inline_plan *plan = er_inline_plan(work);
	struct er_header *hdr = &scratch->record.exec.hdr;
	bool first = er_inline_claim();
	int all = first ? er_inline_take(ER_INLINE_HOST) : -1;
	const struct er_inline_rule *rule;
	__u32 policy;

	work->found = work->refused = 0;
	work->token = -1;
	if (all >= 0 || work->joined)
		er_inline_each(ER_INLINE_CHARGE);
	if (!work->found || !plan) {
		if (!first)
			return false;
		er_inline_give(ER_INLINE_HOST, all);
		er_inline_release(work);
		__sync_fetch_and_add(&state->budget, 1);
		return false;
	}
	rule = &plan->rule[(work->found - 1) & (ER_INLINE_RULES - 1)];
	policy = rule->policy;
	barrier_var(total);
	if (total > ER_RECORD_MAX - sizeof(policy)) /* can't be */
		return false;
	if (first)
		er_inline_pay(work, policy);
	__builtin_memcpy(&scratch->record.bytes[total], &policy, sizeof(policy));
	total += sizeof(policy);
	hdr->len = total;
	hdr->flags |= ER_F_KILLED;
	if (!er_inline_put_last(scratch, total)) {
		er_inline_give(rule->slot, work->token);
		er_inline_give(ER_INLINE_HOST, all);
		if (first)
			er_inline_release(work);
		__sync_fetch_and_add(&state->unsent, 1);
		return true;
	}
	if (bpf_send_signal(ER_SIGKILL)) {
		__sync_fetch_and_add(&state->failed, 1);
		if (first)
			er_inline_release(work);
	} else if (first) {
		__sync_fetch_and_add(&state->killed, 1);
	}
	return true;
}

/* Sends the record, of so many bytes. Not static, so that it is verified once. Returns whether it was sent. */
__noinline int er_inline_send(__u32 total)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_state *state = er_inline_state();
	const struct er_inline_plan *plan;
	struct er_inline_work *work;
	struct er_gate_work *numbers;
	__u64 half;
	__u32 code;

	if (!scratch)
		return 0;
	half = state ? *(volatile __u64 *)&state->half : 0; /* once: the plans may be changed meanwhile */
	if (!half)					    /* on most hosts */
		return er_inline_output(scratch, total);
	work = er_inline_work();
	numbers = er_gate_work();
	if (!work || !numbers)
		return er_inline_output(scratch, total);
	code = scratch->call.event & (ER_INLINE_CODES - 1);
	work->half = half;
	plan = er_inline_plan(work);
	if (!plan || plan->first[code] >= plan->end[code])
		return er_inline_output(scratch, total);
	if (scratch->record.exec.hdr.flags & ~ER_INLINE_HARMLESS) {
		if (!er_inline_output(scratch, total))
			return 0;
		er_inline_doubt();
		return 1;
	}
	er_inline_collect(scratch, numbers);
	work->ends = 0;
	er_inline_each(ER_INLINE_LOOK);
	if (work->ends && !er_inline_ending()) {
		if (scratch->record.exec.hdr.time_ns >= state->lease_ns)
			__sync_fetch_and_add(&state->expired, 1);
		else if (er_inline_spared(scratch, work))
			__sync_fetch_and_add(&state->spared, 1);
		else if (er_inline_strike(scratch, state, work, total))
			return 1;
	}
	if (!er_inline_output(scratch, total))
		return 0;
	er_inline_each(ER_INLINE_REMEMBER);
	return 1;
}

#endif
