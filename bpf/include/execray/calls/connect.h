/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets: connect, by itself and through socketcall. */
#ifndef EXECRAY_CALLS_CONNECT_H
#define EXECRAY_CALLS_CONNECT_H

#define S_IFMT	    0170000
#define S_IFSOCK    0140000
#define AF_UNSPEC   0
#define AF_UNIX	    1
#define AF_INET	    2
#define AF_INET6    10
#define EINPROGRESS 115

/* The address as the caller gave it. */
static __always_inline void er_user_address(struct er_connect *e, __u64 from, __u32 len)
{
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {};

	bpf_probe_read_user(&a, sizeof(a.in), (void *)from);
	e->dport = bpf_ntohs(a.in.sin_port);
	if (e->family == AF_INET) {
		__builtin_memcpy(e->daddr, &a.in.sin_addr, 4);
	} else if (len >= sizeof(a.in6)) {
		bpf_probe_read_user(&a.in6, sizeof(a.in6), (void *)from);
		__builtin_memcpy(e->daddr, &a.in6.sin6_addr, 16);
	}
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

static __noinline int er_connect(struct er_scratch *scratch, struct er_call *call)
{
	struct er_connect *e;
	struct file *file;
	__u64 address;
	__u32 len, total;
	__u16 family = 0;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.connect;
	address = call->arg[1];
	len = call->arg[2];
	e->fd = call->arg[0];
	__builtin_memset(e->daddr, 0, sizeof(e->daddr));
	__builtin_memset(e->saddr, 0, sizeof(e->saddr));
	e->dport = e->sport = e->path_len = 0;
	if (bpf_probe_read_user(&family, sizeof(family), (void *)address))
		e->hdr.flags |= ER_F_UNREADABLE;
	e->family = family;
	e->ret = call->ret;
	total = sizeof(*e);
	/* Once it is connected the socket itself is asked, its family first: the caller's memory may say AF_UNIX by
	 * now. */
	file = call->file;
	if (file && (call->ret == 0 || call->ret == -EINPROGRESS) &&
	    (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) == S_IFSOCK) {
		er_socket_address(e, file);
		if (family == AF_UNSPEC && !e->dport) /* a disconnect */
			e->family = AF_UNSPEC;
	} else if (family == AF_INET || family == AF_INET6) {
		er_user_address(e, address, len);
	}
	if (e->family == AF_UNIX) {
		if (len > 110) /* sizeof(struct sockaddr_un) */
			len = 110;
		if (len > 2) {
			len -= 2;
			bpf_probe_read_user(e->tail, len & 127, (void *)(address + 2));
			e->path_len = len;
			total += len & 127;
		}
	}
	e->hdr.len = total;
	er_send(e, total);
	return 0;
}

#endif
