/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kills in the kernel. Asked when a system call's record is whole and about to be sent: whether it meets, beyond doubt,
 * the last step of a policy that kills. Everything that isn't sure is left to user space, which gets the record anyway.
 */
#ifndef EXECRAY_INLINE_H
#define EXECRAY_INLINE_H

#include "execray/gate.h"
#include "execray/inline_plan.h"

#define ER_SIGKILL     9
#define ER_PF_KTHREAD  0x00200000
#define ER_INLINE_MAIN 1 /* a pid up to this is never killed */
/* include/linux/sched/signal.h: somebody has ended the process already */
#define ER_SIGNAL_GROUP_EXIT 4

/* What a record may have and still be sure: text that no rule asks for was cut, or the gate has an opinion. */
#define ER_INLINE_HARMLESS (ER_F_CONTENT_TRUNCATED | ER_F_RAWPATH_TRUNCATED | ER_F_GATE_DROP)
/* Where a path begins in a record, and how long it is: less than this together. */
#define ER_INLINE_AT (2 * ER_PATH_MAX - 1)

struct er_inline_plan_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ER_INLINE_HALVES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_inline_plan));
};

struct er_inline_state_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_inline_state));
};

/* What is there is spared: a letter, and the name of a program's file (e), of a thread (c), or a pid (p). */
struct er_inline_spared_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_INLINE_SPARED);
	__uint(key_size, ER_INLINE_NAME);
	__uint(value_size, sizeof(__u32));
};

/* A kill takes one of its policy and one of the host's away: that is atomic, and tracerd lays them back a minute later.
 */
struct er_inline_tokens_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, (ER_INLINE_POLICIES + 1) * ER_INLINE_TOKENS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
};

struct er_inline_cells_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ER_INLINE_CELLS);
	__uint(key_size, sizeof(struct er_inline_cell_key));
	__uint(value_size, sizeof(struct er_inline_cell));
};

ER_SLOT(er_inline_plan_slot, struct er_inline_plan_map);
ER_SLOT(er_inline_state_slot, struct er_inline_state_map);
ER_SLOT(er_inline_spared_slot, struct er_inline_spared_map);
ER_SLOT(er_inline_tokens_slot, struct er_inline_tokens_map);
ER_SLOT(er_inline_cells_slot, struct er_inline_cells_map);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_inline_work);
} er_inline_works SEC(".maps");

static __always_inline struct er_inline_work *er_inline_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&er_inline_works, &zero);
}

static __always_inline struct er_inline_state *er_inline_state(void)
{
	void *states = er_slot(&er_inline_state_slot);
	__u32 zero = 0;

	return states ? bpf_map_lookup_elem(states, &zero) : NULL;
}

/* The plan that was in use when the record at hand was to be sent: one and the same until it is. */
static __always_inline const struct er_inline_plan *er_inline_plan(const struct er_inline_work *work)
{
	void *plans = er_slot(&er_inline_plan_slot);
	__u32 index = work->half - 1;

	return plans ? bpf_map_lookup_elem(plans, &index) : NULL;
}

/* Whether a rule is one of those for the event in the record. */
static __always_inline bool er_inline_mine(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					   __u32 index)
{
	__u32 code = scratch->call.event & (ER_INLINE_CODES - 1);

	return index >= plan->first[code] && index < plan->end[code];
}

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
	__u64 value = work->number[number->input & 15];
	bool met;

	if (!(work->known >> (number->input & 15) & 1))
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

static __always_inline struct er_inline_cell *er_inline_cell(const struct er_scratch *scratch,
							     const struct er_inline_rule *rule)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	void *cells = er_slot(&er_inline_cells_slot);

	return cells ? bpf_map_lookup_elem(cells, &key) : NULL;
}

/* Whether a cell is this process's, and of this plan. It may become another process's at any time. */
static __always_inline bool er_inline_ours(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					   const struct er_inline_cell *cell)
{
	const volatile struct er_inline_cell *now = cell;

	return now->start_ns == scratch->record.exec.task.start_ns && now->generation == plan->generation;
}

/* When the latest sequence began that has come to this step of the rule; 0: none has. */
static __always_inline __u64 er_inline_since(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					     const struct er_inline_rule *rule)
{
	struct er_inline_cell *cell;
	__u64 since;

	if (!rule->step)
		return scratch->record.exec.hdr.time_ns;
	cell = er_inline_cell(scratch, rule);
	if (!cell || !er_inline_ours(scratch, plan, cell))
		return 0;
	since = *(volatile __u64 *)&cell->since[(rule->step - 1) & (ER_INLINE_STEPS - 1)];
	return er_inline_ours(scratch, plan, cell) ? since : 0;
}

/* What has begun is left to user space: there a sequence may have been used up. */
static __always_inline void er_inline_forget(const struct er_scratch *scratch, const struct er_inline_rule *rule)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	void *cells = er_slot(&er_inline_cells_slot);

	if (cells)
		bpf_map_delete_elem(cells, &key);
}

/* A step before the last was met by an event that user space gets: the sequence leaves its place, and is a step
 * further, where it takes the place of an older one. */
static __always_inline void er_inline_advance(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					      const struct er_inline_rule *rule, struct er_inline_cell *next)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	__u64 since = er_inline_since(scratch, plan, rule);
	struct er_inline_cell *cell = er_inline_cell(scratch, rule);
	void *cells = er_slot(&er_inline_cells_slot);

	if (!since || !cells)
		return;
	__builtin_memset(next, 0, sizeof(*next));
	if (cell)
		__builtin_memcpy(next, cell, sizeof(*next));
	if (!cell || !er_inline_ours(scratch, plan, next) || !er_inline_ours(scratch, plan, cell)) {
		if (rule->step)
			return;
		__builtin_memset(next, 0, sizeof(*next));
	}
	next->start_ns = scratch->record.exec.task.start_ns;
	next->generation = plan->generation;
	if (rule->step)
		next->since[(rule->step - 1) & (ER_INLINE_STEPS - 1)] = 0;
	next->since[rule->step & (ER_INLINE_STEPS - 1)] = since;
	bpf_map_update_elem(cells, &key, next, BPF_ANY);
}

static __always_inline bool er_inline_listed(struct er_inline_work *work, char letter)
{
	void *spared = er_slot(&er_inline_spared_slot);

	work->name[0] = letter;
	return !spared || bpf_map_lookup_elem(spared, work->name);
}

/* A name into the key of what is spared: the rest of the key is NULs. Returns false where it can't be read. */
static __always_inline bool er_inline_name(struct er_inline_work *work, const void *name)
{
	__builtin_memset(work->name, 0, sizeof(work->name));
	return bpf_probe_read_kernel_str(work->name + 1, sizeof(work->name) - 1, name) > 0;
}

/*
 * Whether the process must be left alone, or isn't known not to have to. A program on the protected list is known by
 * its file's name alone, and by its own: too many are spared, and whoever should be killed is by the enforcer.
 */
static __always_inline bool er_inline_spared(struct er_scratch *scratch, struct er_inline_work *work)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct er_task *who = &scratch->record.exec.task;
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	struct dentry *dentry = file ? BPF_CORE_READ(file, f_path.dentry) : NULL;

	if (who->pid <= ER_INLINE_MAIN || (BPF_CORE_READ(task, flags) & ER_PF_KTHREAD) || !dentry)
		return true;
	if (!er_inline_name(work, BPF_CORE_READ(dentry, d_name.name)) || !work->name[1] || er_inline_listed(work, 'e'))
		return true;
	if (!er_inline_name(work, who->comm) || er_inline_listed(work, 'c'))
		return true;
	/* the name of the process is that of its first thread */
	if (!er_inline_name(work, &BPF_CORE_READ(task, group_leader)->comm) || er_inline_listed(work, 'c'))
		return true;
	__builtin_memset(work->name, 0, sizeof(work->name));
	__builtin_memcpy(work->name + 1, &who->pid, sizeof(who->pid));
	return er_inline_listed(work, 'p');
}

/* Takes one kill of a minute's away; returns its number, or -1 where none is left. Not static, to be verified once. */
__noinline int er_inline_take(__u32 slot)
{
	void *tokens = er_slot(&er_inline_tokens_slot);
	__u32 i;

	for (i = 0; i < ER_INLINE_TOKENS; i++) {
		__u32 key = (slot & 127) << 16 | i;

		if (tokens && !bpf_map_delete_elem(tokens, &key))
			return i;
	}
	return -1;
}

static __always_inline void er_inline_give(__u32 slot, int taken)
{
	void *tokens = er_slot(&er_inline_tokens_slot);
	__u32 key = (slot & 127) << 16 | (__u32)taken, nothing = 0;

	if (tokens && taken >= 0)
		bpf_map_update_elem(tokens, &key, &nothing, BPF_ANY);
}

/* Sends so many bytes; the bound is checked as it is used. Returns whether there was room for them. */
static __always_inline bool er_inline_output(struct er_scratch *scratch, __u32 total)
{
	barrier_var(total);
	if (total > ER_RECORD_MAX)
		return false;
	return er_send(&scratch->record, total);
}

/* Whether the process is about to end anyway: its other threads' last calls are worth no kill. */
static __always_inline bool er_inline_ending(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, signal, flags) & ER_SIGNAL_GROUP_EXIT;
}

/*
 * Sends the record of an event that completes a policy, and kills: in this order, and not without evidence. Returns
 * false where no kill is left for this minute, and nothing was sent.
 */
static __always_inline bool er_inline_strike(struct er_scratch *scratch, struct er_inline_state *state,
					     const struct er_inline_rule *rule, __u32 total)
{
	struct er_header *hdr = &scratch->record.exec.hdr;
	__u32 policy = rule->policy, slot = rule->slot;
	int one, all;

	one = er_inline_take(slot);
	all = one < 0 ? -1 : er_inline_take(ER_INLINE_HOST);
	if (all < 0) {
		er_inline_give(slot, one);
		__sync_fetch_and_add(&state->budget, 1);
		return false;
	}
	barrier_var(total);
	if (total > ER_RECORD_MAX - sizeof(policy)) /* can't be */
		return false;
	__builtin_memcpy(&scratch->record.bytes[total], &policy, sizeof(policy));
	total += sizeof(policy);
	hdr->len = total;
	hdr->flags |= ER_F_KILLED;
	if (!er_inline_output(scratch, total)) {
		er_inline_give(slot, one);
		er_inline_give(ER_INLINE_HOST, all);
		__sync_fetch_and_add(&state->unsent, 1);
		return true;
	}
	if (bpf_send_signal(ER_SIGKILL))
		__sync_fetch_and_add(&state->failed, 1);
	else
		__sync_fetch_and_add(&state->killed, 1);
	return true;
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
	if (work->met[at] != ER_INLINE_YES || work->found || rule->step + 1 != rule->steps)
		return 0;
	since = er_inline_since(scratch, plan, rule);
	if (since && (!rule->step || now - since + ER_INLINE_SLACK_NS <= rule->within_ns))
		work->found = at + 1;
	return 0;
}

/*
 * User space has been sent an event: if it met this rule, its policy has come as far. What may have been a last step
 * may have used up a sequence there, also one that has come further than is known here. Not static, to be verified
 * once.
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
		if (what == ER_INLINE_LOOK) {
			er_inline_look(first + i);
			continue;
		}
		if (what == ER_INLINE_DOUBT)
			work->met[(first + i) & (ER_INLINE_RULES - 1)] = ER_INLINE_MAYBE;
		er_inline_remember(first + i);
	}
	return 0;
}

/* Sends the record, of so many bytes. Not static, so that it is verified once. Returns whether it was sent. */
__noinline int er_inline_send(__u32 total)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_state *state = er_inline_state();
	struct er_inline_work *work = er_inline_work();
	struct er_gate_work *numbers = er_gate_work();
	const struct er_inline_plan *plan;
	__u32 code;

	if (!scratch)
		return 0;
	code = scratch->call.event & (ER_INLINE_CODES - 1);
	if (!state || !work || !numbers)
		return er_inline_output(scratch, total);
	work->half = *(volatile __u64 *)&state->half;
	plan = work->half ? er_inline_plan(work) : NULL;
	if (!plan || plan->first[code] >= plan->end[code])
		return er_inline_output(scratch, total);
	if (scratch->record.exec.hdr.flags & ~ER_INLINE_HARMLESS) {
		if (!er_inline_output(scratch, total))
			return 0;
		er_inline_each(ER_INLINE_DOUBT);
		return 1;
	}
	er_inline_collect(scratch, numbers);
	work->found = 0;
	er_inline_each(ER_INLINE_LOOK);
	if (work->found && !er_inline_ending()) {
		const struct er_inline_rule *rule = &plan->rule[(work->found - 1) & (ER_INLINE_RULES - 1)];

		if (scratch->record.exec.hdr.time_ns >= state->lease_ns)
			__sync_fetch_and_add(&state->expired, 1);
		else if (er_inline_spared(scratch, work))
			__sync_fetch_and_add(&state->spared, 1);
		else if (er_inline_strike(scratch, state, rule, total))
			return 1;
	}
	if (!er_inline_output(scratch, total))
		return 0;
	er_inline_each(ER_INLINE_REMEMBER);
	return 1;
}

#endif
