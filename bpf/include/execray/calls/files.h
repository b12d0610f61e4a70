/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are open: open, write and read in all their forms. */
#ifndef EXECRAY_CALLS_FILES_H
#define EXECRAY_CALLS_FILES_H

#include "execray/calls/record.h"
#include "execray/calls/ptrace.h"

#define ER_MAX_IOV 8

/* What else there is in the record of an event that leaves the kernel. Returns where the tail ends. */
static __always_inline __u32 er_complete_file(struct er_scratch *scratch, struct er_file *e, struct file *file)
{
	__u32 len = e->path_len & (ER_PATH_MAX - 1);
	struct inode *inode = ER_AS(struct inode, scratch->call.inode);
	__u16 below_len = 0;

	e->ret = scratch->call.ret;
	e->about = 0;
	e->content_len = 0;
	e->own_len = 0;
	if (file) {
		er_tell_path_of(scratch, &e->hdr.flags);
		e->i_mode = ER_LOAD(inode, i_mode);
		e->dev = ER_LOAD(inode, i_sb, s_dev);
		e->generation = ER_LOAD(inode, i_generation);
		e->i_uid = ER_LOAD(inode, i_uid.val);
		e->own_len = er_append_below(scratch, &e->tail[len], len, &below_len, &e->hdr.flags);
	}
	e->below_len = below_len;
	return len + (below_len & (ER_PATH_MAX - 1));
}

static __always_inline void er_send_file(struct er_scratch *scratch, struct er_file *e, __u32 tail_len)
{
	__u32 total = sizeof(*e) + tail_len;

	if (total > sizeof(scratch->record))
		return;
	e->hdr.len = total;
	er_submit(e, total);
}

/* Whether the open that gave this file has made it. O_TMPFILE makes one that the kernel doesn't count as created. */
static __always_inline bool er_has_made(struct file *file)
{
	return file && ((__u32)(__u64)BPF_CORE_READ(file, f_mode) & ER_FMODE_CREATED ||
			BPF_CORE_READ(file, f_flags) & ER_O_TMPFILE);
}

/* Whether an open that has succeeded, and whose descriptor another thread has closed since, may have made a file. */
static __always_inline bool er_may_have_made(const struct er_call *call)
{
	__u64 flags = call->arg[2], held;

	if (call->ret < 0)
		return false;
	switch (call->nr) {
	case NR_CREAT: return true;
	case NR_OPEN: flags = call->arg[1]; break;
	case NR_OPENAT2: /* the first word of struct open_how: what can't be read any more may have been any */
		if (call->uring)
			break;
		if (bpf_probe_read_user(&held, sizeof(held), (void *)call->arg[2]))
			return true;
		flags = held;
	}
	return flags & (ER_O_CREAT | ER_O_TMPFILE);
}

/* By which ids a file was opened, where they may be others than the thread's. */
static __always_inline void er_opened_by(struct er_task *out, struct file *file)
{
	const struct cred *cred = BPF_CORE_READ(file, f_cred);

	out->fsuid = BPF_CORE_READ(cred, fsuid.val);
	out->fsgid = BPF_CORE_READ(cred, fsgid.val);
}

/*
 * Which process a file of a proc filesystem is about, by its inode: whatever name, mount and pid namespace it was
 * opened through, and whether the number in that name is a process's or a thread's.
 */
static __always_inline void er_fill_about(struct er_file *e, struct file *file)
{
	struct file *known = ER_AS(struct file, file);
	struct task_struct *task;

	if (ER_LOAD(known, f_inode, i_sb, s_magic) != ER_PROC_MAGIC)
		return;
	task = er_proc_task(file);
	if (!task) /* of the whole host, or of who is gone */
		return;
	e->about = BPF_CORE_READ(task, tgid);
	e->asked = er_start_ns(task);
}

/* spelling: whether the name is wanted as the caller wrote it, also where the path is known. */
static __noinline int er_open(struct er_scratch *scratch, struct er_call *call, __u32 spelling)
{
	struct er_file *e;
	__u32 at;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.file;
	if (call->uring && call->file) /* a request may bring credentials that were registered before */
		er_opened_by(&e->task, call->file);
	e->asked = 0;
	e->fd = call->ret >= 0 ? call->ret : -1;
	at = er_complete_file(scratch, e, call->file) & (2 * ER_PATH_MAX - 1);
	if (call->file) {
		er_fill_about(e, call->file);
		/* without a number the path counts for nothing; /proc/self/ns/net and the like have none */
		if (spelling || !e->ino || !e->path_len)
			e->raw_len = er_append_given(call, &e->tail[at], er_open_name(call), 2, &e->hdr);
	}
	at += e->raw_len & (ER_PATH_MAX - 1);
	er_send_file(scratch, e, at);
	return 0;
}

/* The first of some buffers that isn't empty, and the length of all that were looked at. */
static __always_inline void er_first_iov(bool compat, __u64 at, __u64 count, __u64 *base, __u64 *len, __u64 *sum)
{
	__u64 iov[2] = {};
	__u32 narrow[2] = {};
	int i;

	*base = *len = *sum = 0;
	for (i = 0; i < ER_MAX_IOV; i++) {
		if ((__u64)i >= count)
			break;
		if (compat) {
			bpf_probe_read_user(narrow, sizeof(narrow), (void *)(at + i * sizeof(narrow)));
			iov[0] = narrow[0];
			iov[1] = narrow[1];
		} else {
			bpf_probe_read_user(iov, sizeof(iov), (void *)(at + i * sizeof(iov)));
		}
		if (!*len) {
			*base = iov[0];
			*len = iov[1];
		}
		*sum += iov[1];
	}
}

/* Where a call's bytes lie in the caller's memory, how many there are in the piece to be read, and in all. */
static __always_inline void er_buffer(struct er_call *call, __u64 *from, __u64 *len, __u64 *asked)
{
	__u64 at = call->arg[1], count = call->arg[2];

	switch (call->nr) {
	case NR_SENDFILE:
		*from = *len = 0;
		*asked = call->arg[3];
		return;
	case NR_SPLICE:
	case NR_COPY_FILE_RANGE:
		*from = *len = 0;
		*asked = call->arg[4];
		return;
	case NR_SENDMSG:
	case NR_RECVMSG:
	case NR_RECVMMSG:
	case NR_SENDMMSG: {	    /* of several messages the first */
		__u64 wide[2] = {}; /* struct user_msghdr: msg_iov, msg_iovlen */
		__u32 narrow[2] = {};

		if (call->compat) {
			bpf_probe_read_user(narrow, sizeof(narrow), (void *)(call->arg[1] + 8));
			at = narrow[0];
			count = narrow[1];
		} else {
			bpf_probe_read_user(wide, sizeof(wide), (void *)(call->arg[1] + 16));
			at = wide[0];
			count = wide[1];
		}
	}
		/* fall through */
	case NR_WRITEV:
	case NR_VMSPLICE:
	case NR_PWRITEV:
	case NR_PWRITEV2:
	case NR_READV:
	case NR_PREADV:
	case NR_PREADV2: er_first_iov(call->compat, at, count, from, len, asked); return;
	}
	*from = at;
	*len = *asked = count;
}

/* How many of the bytes that the caller has room for, or offers, were moved for certain. */
static __always_inline __u64 er_moved(const struct er_call *call)
{
	__u32 len = 0;

	switch (call->nr) {
	case NR_SENDMMSG: return ~0ULL; /* whose result counts messages */
	case NR_RECVMMSG:		/* too: the first one's length stands in mmsghdr, behind user_msghdr */
		bpf_probe_read_user(&len, sizeof(len), (void *)(call->arg[1] + (call->compat ? 28 : 56)));
		return len;
	}
	return call->ret;
}

/* Bytes to or from a descriptor. content: whether to take them along. */
static __noinline int er_write(struct er_scratch *scratch, struct er_call *call, __u32 content)
{
	struct er_file *e;
	__u64 from, len, asked;
	__u32 at, take;
	bool zero_copy;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.file;
	e->raw_len = 0;
	e->open_flags = 0;
	zero_copy = er_is_zero_copy(call->nr);
	e->fd = zero_copy && call->nr != NR_SENDFILE ? call->arg[2] : call->arg[0];
	er_buffer(call, &from, &len, &asked);
	e->asked = asked;
	/* What was written for certain can be read; the rest of the buffer may lie past its mapping's end. */
	if (call->ret > 0) {
		__u64 moved = er_moved(call);

		if (moved < len)
			len = moved;
	} else if (call->event == ER_EVENT_READ) { /* what lies in the buffer is older */
		len = 0;
	}
	at = er_complete_file(scratch, e, call->file) & (2 * ER_PATH_MAX - 1);
	if (content && zero_copy)
		e->hdr.flags |= ER_F_UNREADABLE;
	if (content && len) {
		take = len;
		if (len > ER_CONTENT_MAX) {
			take = ER_CONTENT_MAX;
			e->hdr.flags |= ER_F_CONTENT_TRUNCATED;
		}
		if (take > ER_CONTENT_MAX) /* the verifier forgets the bound above */
			take = ER_CONTENT_MAX;
		if (bpf_probe_read_user(&e->tail[at], take, (void *)from))
			e->hdr.flags |= ER_F_UNREADABLE;
		else
			e->content_len = take;
		at += e->content_len & (2 * ER_CONTENT_MAX - 1);
	}
	er_send_file(scratch, e, at);
	return 0;
}

#endif
