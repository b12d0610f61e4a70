/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For objects that packages bring along (docs/plugins.md): a record of an event of their own. It is an er_plain: six
 * numbers, a result, and four texts; what they are says the event's line in the package's table.
 *
 *	struct er_plain *e = er_own_begin(0, 302, ret);
 *
 *	if (!e)
 *		return 0;
 *	e->arg0 = ...;
 *	er_own_send(e, er_own_text(e, 0, &e->len2, (void *)regs->si));
 */
#ifndef EXECRAY_OWN_H
#define EXECRAY_OWN_H

#include "execray/common.h"
#include "execray/calls/record.h"

#define ER_OWN_MAX	 16
#define ER_OWN_TEXTS_MAX (4 * ER_PATH_MAX - 1)

/* What each event of the object is called in records, in the order of the table; 0: nobody wants it. tracerd's. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ER_OWN_MAX);
	__type(key, __u32);
	__type(value, __u32);
} er_own_kinds SEC(".maps");

/*
 * Begins a record of what the current task does. which: the event's place in the table; nr: the number of its line
 * there. NULL where nobody wants it, and for ExecRay's own processes.
 */
static __always_inline struct er_plain *er_own_begin(__u32 which, __u16 nr, __s64 ret)
{
	__u32 *kind = bpf_map_lookup_elem(&er_own_kinds, &which);
	struct er_config *config = er_get_config();
	struct er_scratch *scratch = er_get_scratch();
	struct er_plain *e;

	if (!kind || !*kind || !config || !scratch)
		return NULL;
	e = &scratch->record.plain;
	if (!er_begin(&e->hdr, config, *kind))
		return NULL;
	e->arg0 = e->arg1 = e->arg2 = e->arg3 = e->arg4 = e->arg5 = 0;
	e->ret = ret;
	e->ino = 0;
	e->dev = 0;
	e->i_uid = 0;
	e->generation = 0;
	e->i_mode = 0;
	e->nr = nr;
	e->len0 = e->len1 = e->len2 = e->len3 = 0;
	return e;
}

/* Appends a text of the caller's memory behind `at` bytes of others; returns how many there are then. The texts of a
 * record stand in the order of len0 to len3. */
static __always_inline __u32 er_own_text(struct er_plain *e, __u32 at, __u16 *len, const void *from)
{
	at &= ER_OWN_TEXTS_MAX;
	*len = er_append_user_str(&e->tail[at], (__u64)from, &e->hdr);
	return at + (*len & (ER_PATH_MAX - 1));
}

/* texts: bytes of text in all. */
static __always_inline void er_own_send(struct er_plain *e, __u32 texts)
{
	__u32 total = sizeof(*e) + (texts & ER_OWN_TEXTS_MAX);

	er_sign(&e->hdr, &e->task);
	e->hdr.len = total;
	er_send(e, total);
}

#endif
