/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Calls that need no handler of their own: arguments as they are, names and descriptors resolved as er_shape says. */
#ifndef EXECRAY_CALLS_PLAIN_H
#define EXECRAY_CALLS_PLAIN_H

#include "execray/calls/record.h"
#include "execray/calls/creds.h"

#define ER_AT_FDCWD (-100)
#define ER_AT_ROOT  7 /* er_shape::dir: the path is that of the root the caller has now */
/* Four texts end here at the latest; no shape has more. */
#define ER_TEXTS_MAX (4 * ER_PATH_MAX - 1)

/* A name's first byte; 0 for an empty one, or none. */
static __always_inline char er_first_byte(const struct er_call *call, __u32 place)
{
	struct er_ring_name *name;
	char first = 0;

	if (!call->uring) {
		bpf_probe_read_user(&first, sizeof(first), (void *)call->value[place & 7]);
		return first;
	}
	name = er_ring_name(call, place);
	return name && name->len ? name->text[0] : 0;
}

/*
 * Where a name begins: the caller's root, its working directory, or a directory's descriptor. What has no name is the
 * descriptor itself (AT_EMPTY_PATH, and NULL for utimensat). Appends its path; returns its length.
 */
static __noinline int er_append_start(struct er_scratch *scratch, __u32 at, __u32 dir, __u32 name)
{
	struct task_struct *task = er_this_task();
	struct er_plain *e;
	struct fs_struct *fs;
	struct file *file;
	__s32 fd;
	char first;

	if (!scratch)
		return 0;
	/* nobody asked for what the kernel does for a process that is gone, and it has no folders */
	if (scratch->call.uring && BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	e = &scratch->record.plain;
	at &= ER_TEXTS_MAX;
	fd = dir ? (__s32)scratch->call.value[dir & 7] : ER_AT_FDCWD;
	first = er_first_byte(&scratch->call, name);
	fs = BPF_CORE_READ(task, fs);
	if (first == '/' || dir == ER_AT_ROOT)
		return er_append_path(scratch, &e->tail[at], &fs->root, &e->hdr.flags);
	if (fd == ER_AT_FDCWD)
		return er_append_path(scratch, &e->tail[at], &fs->pwd, &e->hdr.flags);
	file = er_file_of(task, fd);
	if (!file)
		return 0;
	if (!first) {
		ER_FILL_INODE(e, file);
	}
	return er_append_path(scratch, &e->tail[at], &file->f_path, &e->hdr.flags);
}

/* Appends a text of the caller; returns its length. */
static __noinline int er_append_text(struct er_scratch *scratch, __u32 at, __u32 text)
{
	struct er_plain *e;
	__u64 from;

	if (!scratch)
		return 0;
	e = &scratch->record.plain;
	from = scratch->call.value[text & 7];
	if (!from && !scratch->call.uring)
		return 0;
	return er_append_given(&scratch->call, &e->tail[at & ER_TEXTS_MAX], from, text, &e->hdr);
}

/* What the thread had last got before; all ones where that isn't on record. Not inlined: see er_renew_creds(). */
static __noinline int er_fill_old_caps(struct er_scratch *scratch)
{
	__u32 tid = bpf_get_current_pid_tgid();
	void *map = er_slot(&er_creds_slot);
	struct er_creds *old = map ? bpf_map_lookup_elem(map, &tid) : NULL;
	struct er_plain *e;

	if (!scratch)
		return 0;
	e = &scratch->record.plain;
	if (old && old->start_ns == er_current_start_ns()) {
		e->arg2 = old->cap_effective;
		e->arg3 = old->cap_permitted;
		return 0;
	}
	e->arg2 = e->arg3 = (__u64)-1;
	e->hdr.flags |= ER_F_OLD_CREDS_UNKNOWN;
	return 0;
}

/* What a capset left behind, where its arguments are pointers. */
static __always_inline void er_fill_caps(struct er_plain *e)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(task, real_cred);

	/* Linux 6.3 (f122a08b197d) made two words one; the bytes are the same. */
	bpf_core_read(&e->arg0, sizeof(e->arg0), &cred->cap_effective);
	bpf_core_read(&e->arg1, sizeof(e->arg1), &cred->cap_permitted);
}

/* Calls that give a thread other groups or capabilities: what there is then is what it was given. */
static __always_inline bool er_gives_rights(enum er_event event)
{
	return event == ER_EVENT_SETGID || event == ER_EVENT_CAPSET || event == ER_EVENT_SETNS ||
	       event == ER_EVENT_UNSHARE;
}

static __noinline int er_plain(struct er_scratch *scratch, struct er_call *call)
{
	struct er_plain *e;
	struct er_shape *shape;
	__u32 at = 0, total;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.plain;
	shape = &call->shape;
	__builtin_memcpy(&e->arg0, call->arg, sizeof(call->arg));
	if (call->event == ER_EVENT_CAPSET) {
		er_fill_caps(e);
		er_fill_old_caps(scratch);
	}
	e->ret = call->ret;
	if (call->ret >= 0 && er_gives_rights(call->event))
		er_renew_creds(call->event, false);
	e->ino = 0;
	e->dev = 0;
	e->i_uid = 0;
	e->generation = 0;
	e->i_mode = 0;
	e->nr = shape->nr;
	e->len0 = e->len1 = e->len2 = e->len3 = 0;
	if (!shape->name && call->file) {
		struct file *file = call->file; /* a local: see er_walk_up() */

		ER_FILL_INODE(e, file);
		e->len0 = er_append_path_of(scratch, e->tail, file, &e->hdr.flags);
		at += e->len0 & (ER_PATH_MAX - 1);
	}
	if (!er_admit())
		return 0;
	er_tell_path_of(scratch, &e->hdr.flags);
	if (shape->name) {
		e->len0 = er_append_start(scratch, 0, shape->dir, shape->name);
		at += e->len0 & (ER_PATH_MAX - 1);
		e->len1 = er_append_text(scratch, at, shape->name);
		at += e->len1 & (ER_PATH_MAX - 1);
	}
	if (shape->name2) {
		e->len2 = er_append_start(scratch, at, shape->dir2, shape->name2);
		at += e->len2 & (ER_PATH_MAX - 1);
		e->len3 = er_append_text(scratch, at, shape->name2);
		at += e->len3 & (ER_PATH_MAX - 1);
	}
	if (shape->text) {
		e->len2 = er_append_text(scratch, at, shape->text);
		at += e->len2 & (ER_PATH_MAX - 1);
	}
	if (shape->text2) {
		e->len3 = er_append_text(scratch, at, shape->text2);
		at += e->len3 & (ER_PATH_MAX - 1);
	}
	total = sizeof(*e) + at;
	if (total > sizeof(scratch->record)) /* can't be; the verifier wants to hear it */
		return 0;
	e->hdr.len = total;
	er_submit(e, total);
	return 0;
}

#endif
