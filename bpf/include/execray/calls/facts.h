/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of the event of a file before anybody decides on it: into the record. */
#ifndef EXECRAY_CALLS_FACTS_H
#define EXECRAY_CALLS_FACTS_H

#include "execray/path.h"
#include "execray/scratch.h"
#include "execray/ring.h"
#include "execray/syscalls.h"

#define O_CREAT_CREAT 01101 /* creat(2) is open with O_CREAT | O_WRONLY | O_TRUNC */
#define ER_O_CREAT    0100
#define O_LARGEFILE   00100000
#define O_OPEN_ONLY   02001700 /* O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_CLOEXEC: not kept in f_flags */

/* Appends text of the caller; returns its length without the NUL. */
static __always_inline __u32 er_append_user_str(char *tail, __u64 from, struct er_header *hdr)
{
	long len = bpf_probe_read_user_str(tail, ER_PATH_MAX, (void *)from);

	if (len < 0) {
		hdr->flags |= ER_F_UNREADABLE;
		return 0;
	}
	if (len == ER_PATH_MAX)
		hdr->flags |= ER_F_RAWPATH_TRUNCATED;
	return len > 0 ? (__u32)(len - 1) & (ER_PATH_MAX - 1) : 0;
}

/* Appends an argument that is a name: from the caller's memory, or from where an io_uring's were kept. */
static __always_inline __u32 er_append_given(const struct er_call *call, char *tail, __u64 from, __u32 place,
					     struct er_header *hdr)
{
	struct er_ring_name *name;
	__u32 len;

	if (!call->uring)
		return er_append_user_str(tail, from, hdr);
	name = er_ring_name(call, place);
	if (!name) {
		hdr->flags |= ER_F_UNREADABLE;
		return 0;
	}
	len = name->len;
	barrier_var(len); /* or its bound is on the stack, where Linux 6.1 forgets it */
	len &= ER_PATH_MAX - 1;
	bpf_probe_read_kernel(tail, len, name->text);
	return len;
}

/* Whether the event's record is er_file: else, if it has a file, er_plain. */
static __always_inline bool er_is_of_file(const struct er_call *call)
{
	return call->event == ER_EVENT_OPEN || call->event == ER_EVENT_WRITE || call->event == ER_EVENT_READ ||
	       call->event == ER_EVENT_CREATE;
}

/* Identity, kind, and the path into the tail. */
static __always_inline void er_take_file(struct er_near *near, struct er_scratch *scratch)
{
	struct er_walk *walk = &near->walk;
	struct er_file *e = &scratch->record.file;
	struct file *file = ER_AS(struct file, scratch->call.file);
	struct inode *inode = ER_LOAD(file, f_inode);

	scratch->call.inode = inode;
	inode = ER_AS(struct inode, inode);
	e->ino = ER_LOAD(inode, i_ino);
	e->f_mode = (__u32)(__u64)ER_LOAD(file, f_mode);
	er_aim(walk, &file->f_path, offsetof(struct er_file, tail));
	er_climb(near, scratch);
	e->path_len = walk->size;
	e->hdr.flags |= (__u16)walk->flags;
	scratch->call.path_at = offsetof(struct er_file, tail);
	scratch->call.path_len = walk->size;
	scratch->call.walked = true;
}

/* The same of an event without one. */
static __always_inline void er_take_none(struct er_file *e)
{
	e->ino = 0;
	e->dev = 0;
	e->i_uid = 0;
	e->f_mode = 0;
	e->generation = 0;
	e->i_mode = 0;
	e->path_len = 0;
}

/* How a file was to be opened, and what was granted. */
static __always_inline void er_take_asked(struct er_file *e, const struct er_call *call)
{
	struct {
		__u64 flags, mode;
	} how = {}; /* the beginning of struct open_how: there is no stack to spare for all of it */
	struct file *file;

	switch (call->nr) {
	case NR_OPENAT:
		how.flags = call->arg[2];
		how.mode = call->arg[3];
		break;
	case NR_OPENAT2:
		if (bpf_probe_read_user(&how, sizeof(how), (void *)call->arg[2]))
			e->hdr.flags |= ER_F_UNREADABLE;
		break;
	case NR_CREAT:
		how.flags = O_CREAT_CREAT;
		how.mode = call->arg[1];
		break;
	case NR_OPEN_BY_HANDLE_AT: how.flags = call->arg[2]; break;
	default: how.flags = call->arg[1]; how.mode = call->arg[2];
	}
	e->open_flags = how.flags;
	e->mode = how.mode & 07777;
	/* into the ring's own table, or closed by another thread since: nobody knows which file */
	if (!call->file && call->ret >= 0 && (call->uring || call->event == ER_EVENT_CREATE))
		e->hdr.flags |= ER_F_UNREADABLE;
	if (!call->file)
		return;
	file = ER_AS(struct file, call->file);
	/* What was granted, where the caller's memory may say something else by now. */
	e->open_flags =
		(how.flags & (O_OPEN_ONLY | O_LARGEFILE)) | (ER_LOAD(file, f_flags) & ~(O_OPEN_ONLY | O_LARGEFILE));
}

/* The name that an open was given, in the caller's memory; 0: a number instead of a name. */
static __always_inline __u64 er_open_name(const struct er_call *call)
{
	switch (call->nr) {
	case NR_OPENAT:
	case NR_OPENAT2: return call->arg[1];
	case NR_OPEN_BY_HANDLE_AT: return 0;
	default: return call->arg[0];
	}
}

/* What the gate may ask of an event of a file. */
static __always_inline void er_take_facts(struct er_near *near, struct er_scratch *scratch)
{
	struct er_file *e = &scratch->record.file;
	struct er_call *call = &scratch->call;
	bool opened = call->event == ER_EVENT_OPEN || call->event == ER_EVENT_CREATE;

	if (opened)
		er_take_asked(e, call);
	e->raw_len = 0;
	if (call->file) {
		er_take_file(near, scratch);
		return;
	}
	er_take_none(e);
	if (opened) /* whether the name can be read is part of what is known of the path */
		e->raw_len = er_append_given(call, e->tail, er_open_name(call), 2, &e->hdr);
}

#endif
