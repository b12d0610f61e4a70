/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: the addresses of both ends. */
#ifndef EXECRAY_CALLS_CONNECT_H
#define EXECRAY_CALLS_CONNECT_H

#include "execray/calls/record.h"

#define S_IFMT	       0170000
#define S_IFSOCK       0140000
#define AF_UNSPEC      0
#define AF_UNIX	       1
#define AF_INET	       2
#define AF_INET6       10
#define EINPROGRESS    115
#define ER_SOCK_STREAM 1
#define ER_SUN_MAX     110 /* sizeof(struct sockaddr_un) */

/* A length below 128, said so that the verifier of Linux 6.1 hears it: else the compiler leaves out what it knows. */
static __always_inline __u32 er_bounded(__u32 len)
{
	barrier_var(len);
	return len & 127;
}

/* The address as the caller gave it. Of one that is too short, or can't be read, nobody knows what it says: no family.
 */
static __always_inline void er_user_address(struct er_connect *e, __u64 from, __u32 len)
{
	/* The kernel takes an IPv6 address without its last field, the scope, too (SIN6_LEN_RFC2133). */
	__u32 size = e->family == AF_INET ? sizeof(struct sockaddr_in) : offsetof(struct sockaddr_in6, sin6_scope_id);
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {};

	if (len < size || bpf_probe_read_user(&a, size, (void *)from)) {
		e->hdr.flags |= ER_F_UNREADABLE;
		e->family = AF_UNSPEC;
		return;
	}
	e->dport = bpf_ntohs(a.in.sin_port);
	if (e->family == AF_INET)
		__builtin_memcpy(e->daddr, &a.in.sin_addr, 4);
	else
		__builtin_memcpy(e->daddr, &a.in6.sin6_addr, 16);
}

/* The socket's own record of both ends: what the caller's memory says may have been rewritten since. */
static __always_inline void er_socket_address(struct er_connect *e, struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);

	e->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	e->dport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	e->sport = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (e->family == AF_INET) {
		BPF_CORE_READ_INTO((__u32 *)e->daddr, sk, __sk_common.skc_daddr);
		BPF_CORE_READ_INTO((__u32 *)e->saddr, sk, __sk_common.skc_rcv_saddr);
	} else if (e->family == AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)e->daddr, sk, __sk_common.skc_v6_daddr);
		BPF_CORE_READ_INTO((struct in6_addr *)e->saddr, sk, __sk_common.skc_v6_rcv_saddr);
	}
}

static __always_inline bool er_has_no_peer(const struct er_connect *e)
{
	const __u64 *address = (const __u64 *)e->daddr;

	return (e->family == AF_INET || e->family == AF_INET6) && !e->dport && !address[0] && !address[1];
}

/* Where the address that the call gives lies in the caller's memory. Returns not 0 where that can't be read. */
static __always_inline long er_given_address(struct er_call *call, __u64 *address, __u32 *len)
{
	long unread = 0;

	*address = call->arg[1];
	*len = call->arg[2];
	if (call->event == ER_EVENT_SENDTO && call->nr != NR_SENDTO) { /* msg_name, msg_namelen */
		__u64 at = call->arg[1];
		__u32 narrow[2] = {};

		if (call->compat) {
			unread = bpf_probe_read_user(narrow, sizeof(narrow), (void *)at);
			*address = narrow[0];
			*len = narrow[1];
		} else {
			unread = bpf_probe_read_user(address, sizeof(*address), (void *)at);
			unread |= bpf_probe_read_user(len, sizeof(*len), (void *)(at + 8));
		}
	} else if (call->event == ER_EVENT_SENDTO) {
		*address = call->arg[4];
		*len = call->arg[5];
	} else if (call->event == ER_EVENT_LISTEN || call->event == ER_EVENT_ACCEPT) {
		*address = *len = 0;
	}
	if (!*len) /* then the kernel doesn't look at it */
		*address = 0;
	return unread;
}

/*
 * Whether a send goes where the call says, and not where its socket is connected: that of a datagram. A stream doesn't
 * look at the address, nor does a datagram's socket for IPv6 at one without a family; for one of IPv4 that is an
 * address like any other.
 */
static __always_inline bool er_goes_where_told(struct file *file, __u16 *family, bool unread)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);

	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return true;
	if (BPF_CORE_READ(socket, type) == ER_SOCK_STREAM)
		return false;
	if (*family == AF_UNSPEC && !unread) {
		if (BPF_CORE_READ(socket, sk, __sk_common.skc_family) != AF_INET)
			return false;
		*family = AF_INET;
	}
	return true;
}

/* The path that a Unix socket is bound to, into the record's tail. Returns its length. */
static __always_inline __u32 er_unix_name(struct er_connect *e, struct file *file)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct unix_sock *sk = (void *)BPF_CORE_READ(socket, sk);
	struct unix_address *address = BPF_CORE_READ(sk, addr);
	__u32 len = address ? BPF_CORE_READ(address, len) : 0;

	if (len <= 2 || len > ER_SUN_MAX)
		return 0;
	len = er_bounded(len - 2);
	bpf_probe_read_kernel(e->tail, len, (void *)address + bpf_core_field_offset(address->name) + 2);
	return len;
}

/* What a socket's calls say of its ends: connect, bind, listen, accept, sendto. */
static __noinline int er_connect(struct er_scratch *scratch, struct er_call *call)
{
	struct er_connect *e;
	struct file *file;
	__u64 address = 0;
	__u32 len = 0, total;
	__u16 family = 0;
	bool unread, by_socket;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.connect;
	e->fd = call->arg[0];
	e->nr = call->nr;
	e->amount = call->arg[call->event == ER_EVENT_LISTEN ? 1 : 2];
	__builtin_memset(e->daddr, 0, sizeof(e->daddr));
	__builtin_memset(e->saddr, 0, sizeof(e->saddr));
	e->dport = e->sport = e->path_len = 0;
	unread = er_given_address(call, &address, &len) ||
		 (address && bpf_probe_read_user(&family, sizeof(family), (void *)address));
	if (unread)
		e->hdr.flags |= ER_F_UNREADABLE;
	e->ret = call->ret;
	/* Once it is connected the socket itself is asked, its family first: the caller's memory may say AF_UNIX by
	 * now. A datagram's destination only the caller knows. */
	file = call->file;
	if (call->event == ER_EVENT_SENDTO)
		by_socket = !(address || unread) || !er_goes_where_told(file, &family, unread);
	else
		by_socket = call->ret >= 0 || call->ret == -EINPROGRESS || !address;
	e->family = family;
	if (file && by_socket && (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) == S_IFSOCK) {
		er_socket_address(e, file);
		if (call->event == ER_EVENT_CONNECT && family == AF_UNSPEC && !e->dport) /* a disconnect */
			e->family = AF_UNSPEC;
		if (call->event == ER_EVENT_SENDTO && er_has_no_peer(e)) /* the bytes went nowhere */
			e->family = AF_UNSPEC;
	} else if (family == AF_INET || family == AF_INET6) {
		er_user_address(e, address, len);
	}
	if (e->family == AF_UNIX && address) {
		if (len > ER_SUN_MAX)
			len = ER_SUN_MAX;
		if (len > 2) {
			len = er_bounded(len - 2);
			if (bpf_probe_read_user(e->tail, len, (void *)(address + 2)))
				e->hdr.flags |= ER_F_UNREADABLE;
			else
				e->path_len = len;
		}
	} else if (e->family == AF_UNIX && file) {
		e->path_len = er_unix_name(e, file);
	}
	call->path_at = e->tail - scratch->record.bytes;
	call->path_len = e->path_len;
	if (!er_admit())
		return 0;
	/* from memory: a length that was kept on the stack has lost its bound by now */
	total = sizeof(*e) + er_bounded(e->path_len);
	e->hdr.len = total;
	er_submit(e, total);
	return 0;
}

#endif
