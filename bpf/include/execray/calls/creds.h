/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread's own ids: setuid, setreuid, setresuid, setfsuid; and ids that changed by none of them. */
#ifndef EXECRAY_CALLS_CREDS_H
#define EXECRAY_CALLS_CREDS_H

#include "execray/calls/record.h"
#include "execray/creds.h"

/* The ids asked for by a call that failed; (uid_t)-1 leaves one as it is, as it stands there already. */
static __always_inline void er_asked_uids(struct er_setuid *e, struct er_call *call)
{
	__u32 real = call->arg[0], effective = call->nr == NR_SETUID ? call->arg[0] : call->arg[1];

	if (real != (__u32)-1)
		e->new_uid = real;
	if (effective != (__u32)-1)
		e->new_euid = effective;
}

static __noinline int er_setuid(struct er_scratch *scratch, struct er_call *call)
{
	struct er_setuid *e;
	struct er_creds *old;
	void *map = er_slot(&er_creds_slot);
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();

	if (!scratch || !call)
		return 0;
	e = &scratch->record.setuid;
	e->hdr.len = sizeof(*e);
	e->ret = call->ret;
	e->call = call->nr == NR_SETUID	    ? ER_CALL_SETUID
		  : call->nr == NR_SETREUID ? ER_CALL_SETREUID
		  : call->nr == NR_SETFSUID ? ER_CALL_SETFSUID
					    : ER_CALL_SETRESUID;
	old = map ? bpf_map_lookup_elem(map, &tid) : NULL;
	if (old && old->start_ns == er_current_start_ns()) {
		e->old_uid = old->uid;
		e->old_euid = old->euid;
	} else {
		e->old_uid = e->old_euid = 0;
		e->hdr.flags |= ER_F_OLD_CREDS_UNKNOWN;
	}
	e->new_uid = BPF_CORE_READ(task, real_cred, uid.val);
	e->new_euid = BPF_CORE_READ(task, real_cred, euid.val);
	if (call->ret < 0 && call->nr != NR_SETFSUID) /* whose result is the id before */
		er_asked_uids(e, call);
	er_remember_creds(task);
	if (er_admit())
		er_submit(e, sizeof(*e));
	return 0;
}

/* A thread asks for its ids: what many do who have just got others. */
static __noinline int er_cred_change(struct er_scratch *scratch, struct er_call *call)
{
	struct er_setuid *e;
	bool changed;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.setuid;
	changed = er_creds_differ(e);
	e->call = call->nr == NR_GETUID ? ER_CALL_GETUID : call->nr == NR_GETEUID ? ER_CALL_GETEUID : ER_CALL_GETRESUID;
	if (!changed && !(e->hdr.flags & ER_F_HEARTBEAT))
		return 0;
	er_remember_creds((void *)bpf_get_current_task());
	if (er_admit())
		er_submit(e, sizeof(*e));
	return 0;
}

#endif
