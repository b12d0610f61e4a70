/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is killed: whom the kernel must leave alone, and how many a minute. */
#ifndef EXECRAY_INLINE_VICTIMS_H
#define EXECRAY_INLINE_VICTIMS_H

#include "execray/inline_maps.h"

#define ER_PF_KTHREAD  0x00200000
#define ER_INLINE_MAIN 1 /* a pid up to this is never killed */

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

/*
 * Takes one kill of a minute's away; returns its number, or -1 where none is left. Begins behind the one that was taken
 * last: each that is gone costs a look-up. Not static, to be verified once.
 */
__noinline int er_inline_take(__u32 slot)
{
	struct er_inline_state *state = er_inline_state();
	void *tokens = er_slot(&er_inline_tokens_slot);
	__u32 first, i;

	if (!state || !tokens || slot > ER_INLINE_HOST)
		return -1;
	first = state->next[slot];
	for (i = 0; i < ER_INLINE_TOKENS; i++) {
		__u32 at = (first + i) & (ER_INLINE_TOKENS - 1);
		__u32 key = slot << 16 | at;

		if (!bpf_map_delete_elem(tokens, &key)) {
			state->next[slot] = at + 1;
			return at;
		}
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

/*
 * Of the threads of a process that are to be killed at once the first claims it. Returns whether this one has; if it
 * hasn't, work->joined is who has paid for the other. Not static: its caller has no stack to spare on Linux 5.10.
 */
__noinline int er_inline_claim(void)
{
	void *claims = er_slot(&er_inline_claims_slot);
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	__u32 *payer;

	if (!scratch || !work)
		return false;
	work->claim.start_ns = scratch->record.exec.task.start_ns;
	work->claim.tgid = scratch->record.exec.task.pid;
	work->claim._pad = 0;
	work->payer = work->joined = 0;
	if (!claims || !bpf_map_update_elem(claims, &work->claim, &work->payer, BPF_NOEXIST))
		return true;
	payer = bpf_map_lookup_elem(claims, &work->claim);
	if (payer)
		work->joined = *payer;
	return false;
}

/* Who pays for the process that was claimed. */
static __always_inline void er_inline_pay(struct er_inline_work *work, __u32 policy)
{
	void *claims = er_slot(&er_inline_claims_slot);

	work->payer = policy;
	if (claims)
		bpf_map_update_elem(claims, &work->claim, &work->payer, BPF_ANY);
}

/* The process lives on, so another of its calls may end it. */
static __always_inline void er_inline_release(struct er_inline_work *work)
{
	void *claims = er_slot(&er_inline_claims_slot);

	if (claims)
		bpf_map_delete_elem(claims, &work->claim);
}

#endif
