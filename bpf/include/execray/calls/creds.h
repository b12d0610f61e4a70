/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread's own ids: setuid, setreuid, setresuid, setfsuid; and rights that changed by no call. */
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

/*
 * After a call that gives a thread rights: what that call gives is what it has been given. What it doesn't give is left
 * as it is on record, or a call of no consequence would cover for what no call has given. Not
 * inlined: the chains of calls below have no stack to spare on Linux 6.1 (512 bytes in all).
 */
static __noinline int er_renew_creds(enum er_event event, bool ids)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = BPF_CORE_READ(task, pid);
	void *map = er_slot(&er_creds_slot);
	struct er_creds *known = map ? bpf_map_lookup_elem(map, &tid) : NULL;
	struct er_creds now = {};

	er_fill_creds(&now, task, false);
	if (!known || known->start_ns != now.start_ns) {
		er_remember_creds(task, false);
		return 0;
	}
	if (event == ER_EVENT_SETUID && ids) {
		known->uid = now.uid;
		known->euid = now.euid;
	} else if (event == ER_EVENT_SETGID) {
		known->gid = now.gid;
		known->egid = now.egid;
	}
	/* setns and unshare give capabilities with a user namespace, and only so */
	if (event == ER_EVENT_SETUID || event == ER_EVENT_CAPSET || known->ns_user != now.ns_user) {
		known->cap_effective = now.cap_effective;
		known->cap_permitted = now.cap_permitted;
		known->ns_user = now.ns_user;
	}
	return 0;
}

static __noinline int er_setuid(struct er_scratch *scratch, struct er_call *call)
{
	struct er_setuid *e;
	struct er_creds *old;
	void *map = er_slot(&er_creds_slot);
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();
	bool done;

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
	done = call->ret >= 0 || call->nr == NR_SETFSUID; /* whose result is the id before */
	if (!done)
		er_asked_uids(e, call);
	if (done || e->hdr.flags & ER_F_OLD_CREDS_UNKNOWN)
		er_renew_creds(ER_EVENT_SETUID, call->nr != NR_SETFSUID);
	if (er_admit())
		er_submit(e, sizeof(*e));
	return 0;
}

static __always_inline enum er_setuid_call er_asked(int nr)
{
	switch (nr) {
	case NR_GETUID: return ER_CALL_GETUID;
	case NR_GETEUID: return ER_CALL_GETEUID;
	case NR_GETRESUID: return ER_CALL_GETRESUID;
	case NR_GETGID: return ER_CALL_GETGID;
	case NR_GETEGID: return ER_CALL_GETEGID;
	case NR_GETRESGID: return ER_CALL_GETRESGID;
	}
	return ER_CALL_CAPGET;
}

/* A thread asks for its ids: what many do who have just got others. */
static __noinline int er_cred_change(struct er_scratch *scratch, struct er_call *call)
{
	struct er_cred_change *e;
	bool changed;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.cred_change;
	changed = er_creds_differ(e, false);
	e->call = er_asked(call->nr);
	if (!changed && !(e->hdr.flags & ER_F_HEARTBEAT))
		return 0;
	er_remember_creds((void *)bpf_get_current_task(), false);
	if (er_admit())
		er_submit(e, sizeof(*e));
	return 0;
}

#endif
