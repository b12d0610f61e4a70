/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ids that changed although no call had changed them: an exploit's commit_creds(), or a write to the credentials. */
#ifndef EXECRAY_CREDS_H
#define EXECRAY_CREDS_H

/*
 * Whether the current thread has other ids than it last got by a call, an exec or its birth. Fills all of the record
 * but its head and `call`.
 */
static __always_inline bool er_creds_differ(struct er_setuid *e)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();
	void *map = er_slot(&er_creds_slot);
	struct er_creds *old = map ? bpf_map_lookup_elem(map, &tid) : NULL;

	e->hdr.len = sizeof(*e);
	e->ret = 0;
	e->old_uid = e->new_uid = BPF_CORE_READ(task, real_cred, uid.val);
	e->old_euid = e->new_euid = BPF_CORE_READ(task, real_cred, euid.val);
	if (!old || old->start_ns != er_current_start_ns())
		return false;
	e->old_uid = old->uid;
	e->old_euid = old->euid;
	return e->old_uid != e->new_uid || e->old_euid != e->new_euid;
}

/* Before an exec or a fork makes what there is now the known state, of the thread or of its child. */
static __always_inline void er_note_cred_change(const struct er_config *config, enum er_setuid_call where)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_setuid *e;

	if (!config || !scratch || !er_wanted(config, ER_EVENT_CRED_CHANGE))
		return;
	e = &scratch->record.setuid;
	if (!er_creds_differ(e) || !er_begin(&e->hdr, config, ER_EVENT_CRED_CHANGE))
		return;
	e->call = where;
	e->hdr.len = sizeof(*e);
	er_sign(&e->hdr, &e->task);
	er_send(e, sizeof(*e));
}

#endif
