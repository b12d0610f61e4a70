/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What handlers of calls share. */
#ifndef EXECRAY_CALLS_RECORD_H
#define EXECRAY_CALLS_RECORD_H

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

#endif
