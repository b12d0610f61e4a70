/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rights that changed although no call had changed them: an exploit's commit_creds(), or a write to the credentials. */
#ifndef EXECRAY_CREDS_H
#define EXECRAY_CREDS_H

/*
 * Whether the current thread has other ids or capabilities than it last got by a call, an exec or its birth. Fills what
 * the record says of before.
 *
 * exec: the program was executed just now, by a file that gives no rights. It still takes some: capabilities follow
 * from the ids, and what is effective may become what is real.
 */
static __always_inline bool er_creds_differ(struct er_cred_change *e, bool exec)
{
	__u32 tid = bpf_get_current_pid_tgid();
	void *map = er_slot(&er_creds_slot);
	struct er_creds *old = map ? bpf_map_lookup_elem(map, &tid) : NULL;
	struct er_creds now = {};

	er_fill_creds(&now, er_this_task(), er_can_load());
	if (!old || old->start_ns != now.start_ns)
		old = &now;
	e->hdr.len = sizeof(*e);
	e->_pad = 0;
	e->old_uid = old->uid;
	e->old_euid = old->euid;
	e->old_gid = old->gid;
	e->old_egid = old->egid;
	e->old_cap_effective = old->cap_effective;
	e->old_cap_permitted = old->cap_permitted;
	if (e->old_uid != now.uid || e->old_gid != now.gid)
		return true;
	if (exec)
		return (e->old_euid != now.euid && now.euid != now.uid) ||
		       (e->old_egid != now.egid && now.egid != now.gid);
	return e->old_euid != now.euid || e->old_egid != now.egid || e->old_cap_effective != now.cap_effective ||
	       e->old_cap_permitted != now.cap_permitted;
}

/* Before an exec or a fork makes what there is now the known state, of the thread or of its child. */
static __always_inline void er_note_cred_change(const struct er_config *config, enum er_setuid_call where)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_cred_change *e;

	if (!config || !scratch || !er_wanted(config, ER_EVENT_CRED_CHANGE))
		return;
	e = &scratch->record.cred_change;
	if (!er_creds_differ(e, where == ER_CALL_EXEC))
		return;
	er_remember_creds(er_this_task(), er_can_load());
	if (!er_begin(&e->hdr, config, ER_EVENT_CRED_CHANGE))
		return;
	e->call = where;
	er_sign(&e->hdr, &e->task);
	er_send(e, sizeof(*e));
}

#endif
