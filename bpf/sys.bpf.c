// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * System calls, as they return: one raw tracepoint for all of them. Tracepoints of single calls would miss 32-bit entry
 * points, and are skipped without a word while another tool's program runs.
 */
#include "execray/common.h"
#include "execray/syscalls.h"

#define O_CREAT_CREAT 01101 /* creat(2) is open with O_CREAT | O_WRONLY | O_TRUNC */
#define S_IFMT	      0170000
#define S_IFSOCK      0140000
#define O_LARGEFILE   00100000
#define O_OPEN_ONLY   02001700 /* O_CREAT, O_EXCL, O_NOCTTY, O_TRUNC, O_CLOEXEC: not kept in f_flags */
#define ER_MAX_IOV    8
#define AF_UNSPEC     0
#define AF_UNIX	      1
#define AF_INET	      2
#define AF_INET6      10
#define EINPROGRESS   115

/*
 * The call is handed on in map memory and not on the stack: of memory the verifier knows no values. Before Linux 6.8
 * (41f6f64e6999) it trusts a constant read through a pointer to a caller's stack without marking it precise: it takes
 * `call->nr` of the first path it walks for the number on all, and removes the other branches as dead.
 */
struct er_sys_scratch {
	struct er_call call;
	struct er_scratch scratch;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_sys_scratch);
} er_sys_scratch SEC(".maps");

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

/* The struct file of fd into the record: identity, kind, and its path into the tail. Returns the path's length. */
static __always_inline __u32 er_append_file(struct er_scratch *scratch, struct er_file *e, struct file *file)
{
	__u32 i_mode, len;

	er_fill_inode(file, &e->ino, &e->dev, &i_mode);
	e->i_mode = i_mode;
	e->f_mode = (__u32)(__u64)BPF_CORE_READ(file, f_mode);
	len = er_append_path(scratch, e->tail, file, &e->hdr.flags);
	e->path_len = len;
	return len;
}

static __always_inline void er_send_file(struct er_scratch *scratch, struct er_file *e, __u32 tail_len)
{
	__u32 total = sizeof(*e) + tail_len;

	if (total > sizeof(scratch->record))
		return;
	e->hdr.len = total;
	er_send(e, total);
}

static __noinline int er_open(struct er_scratch *scratch, struct er_call *call)
{
	struct er_file *e;
	struct open_how how = {};
	struct file *file;
	__u64 raw;
	__u32 at = 0;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.file;
	e->asked = 0;
	switch (call->nr) {
	case NR_OPENAT:
		raw = call->arg[1];
		how.flags = call->arg[2];
		how.mode = call->arg[3];
		break;
	case NR_OPENAT2:
		raw = call->arg[1];
		if (bpf_probe_read_user(&how, sizeof(how), (void *)call->arg[2]))
			e->hdr.flags |= ER_F_UNREADABLE;
		break;
	case NR_CREAT:
		raw = call->arg[0];
		how.flags = O_CREAT_CREAT;
		how.mode = call->arg[1];
		break;
	default:
		raw = call->arg[0];
		how.flags = call->arg[1];
		how.mode = call->arg[2];
	}
	e->open_flags = how.flags;
	e->mode = how.mode & 07777;
	e->fd = call->ret >= 0 ? call->ret : -1;
	file = call->file; /* a local: see er_walk_up() */
	if (file) {
		/* What was granted, where the caller's memory may say something else by now. */
		e->open_flags = (how.flags & (O_OPEN_ONLY | O_LARGEFILE)) |
				(BPF_CORE_READ(file, f_flags) & ~(O_OPEN_ONLY | O_LARGEFILE));
		at = er_append_file(scratch, e, file);
	}
	at &= ER_PATH_MAX - 1;
	e->raw_len = er_append_user_str(&e->tail[at], raw, &e->hdr);
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
	case NR_SENDMSG: {
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
	case NR_PWRITEV:
	case NR_PWRITEV2: er_first_iov(call->compat, at, count, from, len, asked); return;
	}
	*from = at;
	*len = *asked = count;
}

static __noinline int er_write(struct er_scratch *scratch, struct er_call *call, __u32 content)
{
	struct er_file *e;
	__u64 from, len, asked;
	__u32 at = 0, take;
	bool zero_copy;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.file;
	zero_copy = er_is_zero_copy(call->nr);
	e->fd = zero_copy && call->nr != NR_SENDFILE ? call->arg[2] : call->arg[0];
	er_buffer(call, &from, &len, &asked);
	e->asked = asked;
	if (content && zero_copy)
		e->hdr.flags |= ER_F_UNREADABLE;
	/* What was written for certain can be read; the rest of the buffer may lie past its mapping's end. */
	if (call->ret > 0 && (__u64)call->ret < len)
		len = call->ret;
	if (call->file)
		at = er_append_file(scratch, e, call->file);
	at &= ER_PATH_MAX - 1;
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

static __noinline int er_chmod(struct er_scratch *scratch, struct er_call *call)
{
	struct er_file *e;
	__u64 raw = 0;
	__u32 at = 0;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.file;
	e->fd = -1;
	switch (call->nr) {
	case NR_CHMOD:
		raw = call->arg[0];
		e->mode = call->arg[1];
		break;
	case NR_FCHMOD:
		e->fd = call->arg[0];
		e->mode = call->arg[1];
		break;
	default:
		e->fd = call->arg[0];
		raw = call->arg[1];
		e->mode = call->arg[2];
	}
	e->mode &= 07777;
	if (call->file)
		at = er_append_file(scratch, e, call->file);
	at &= ER_PATH_MAX - 1;
	if (raw) {
		e->raw_len = er_append_user_str(&e->tail[at], raw, &e->hdr);
		at += e->raw_len & (ER_PATH_MAX - 1);
	}
	er_send_file(scratch, e, at);
	return 0;
}

/* execve and execveat that failed; a successful one is sched_process_exec's. */
static __noinline int er_exec_failed(struct er_scratch *scratch, struct er_call *call)
{
	struct er_exec *e;
	__u32 total;

	if (!scratch || !call || call->ret >= 0)
		return 0;
	e = &scratch->record.exec;
	er_fill_parent(e, (void *)bpf_get_current_task());
	e->ino = 0;
	e->dev = 0;
	e->i_mode = 0;
	e->argv_len = 0;
	e->path_len = 0;
	e->ret = call->ret;
	e->filename_len = er_append_user_str(e->tail, call->arg[call->nr == NR_EXECVEAT ? 1 : 0], &e->hdr);
	total = sizeof(*e) + (e->filename_len & (ER_PATH_MAX - 1));
	e->hdr.len = total;
	er_send(e, total);
	return 0;
}

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
	if (call->nr == NR_I386_SOCKETCALL) {
		__u32 args[3] = {};

		bpf_probe_read_user(args, sizeof(args), (void *)call->arg[1]);
		e->fd = args[0];
		address = args[1];
		len = args[2];
	}
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

#define XA_CHUNK_SHIFT_BITS 6
#define XA_NODE_TAG	    2UL
#define PIDTYPE_PID_INDEX   0

/*
 * The task that a pid means to the caller: looked up in its pid namespace's IDR, an XArray, as find_task_by_vpid()
 * does. bpf_task_from_pid() would be shorter, but needs Linux 6.2 and takes pids of the initial namespace.
 */
static __always_inline struct task_struct *er_find_task(__s32 nr)
{
	struct task_struct *current_task = (void *)bpf_get_current_task();
	struct pid *self = BPF_CORE_READ(current_task, thread_pid);
	unsigned int level = BPF_CORE_READ(self, level);
	struct pid_namespace *ns = NULL;
	struct hlist_node *first;
	struct xa_node *node;
	struct pid *pid;
	void *entry;
	int i;

	if (nr <= 0)
		return NULL;
	bpf_core_read(&ns, sizeof(ns), &self->numbers[level & 63].ns);
	entry = BPF_CORE_READ(ns, idr.idr_rt.xa_head);
	/* pids have at most 22 bits: four levels of 64 slots */
	for (i = 0; i < 5; i++) {
		__u8 shift;
		__u32 slot;

		if (((__u64)entry & 3) != XA_NODE_TAG)
			break;
		node = (void *)((__u64)entry - XA_NODE_TAG);
		shift = BPF_CORE_READ(node, shift);
		if (i == 0 && shift < 32 && (__u64)nr >> shift >= 1 << XA_CHUNK_SHIFT_BITS)
			return NULL;
		slot = ((__u32)nr >> (shift & 31)) & ((1 << XA_CHUNK_SHIFT_BITS) - 1);
		bpf_core_read(&entry, sizeof(entry), &node->slots[slot]);
	}
	/* a lone entry at the head stands for index 0 only, which is no pid */
	if (!i || !entry || ((__u64)entry & 3))
		return NULL;
	pid = entry;
	first = BPF_CORE_READ(pid, tasks[PIDTYPE_PID_INDEX].first);
	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links[PIDTYPE_PID_INDEX]);
}

static __noinline int er_ptrace(struct er_scratch *scratch, struct er_call *call)
{
	struct er_ptrace e = {};
	struct task_struct *target;

	if (!scratch || !call)
		return 0;
	e.hdr = scratch->record.exec.hdr;
	e.task = scratch->record.exec.task;
	e.hdr.len = sizeof(e);
	e.request = call->arg[0];
	e.ret = call->ret;
	target = e.request ? er_find_task(call->arg[1]) : NULL; /* 0 is TRACEME: no target */
	if (target) {
		struct task_struct *parent = BPF_CORE_READ(target, real_parent);

		e.target_pid = BPF_CORE_READ(target, tgid);
		e.target_tid = BPF_CORE_READ(target, pid);
		e.target_start_ns = er_start_ns(target);
		e.target_uid = BPF_CORE_READ(target, real_cred, uid.val);
		e.target_ppid = BPF_CORE_READ(parent, tgid);
		e.target_parent_start_ns = er_start_ns(parent);
	}
	er_send(&e, sizeof(e));
	return 0;
}

/* The ids asked for by a call that failed; (uid_t)-1 leaves one as it is. */
static __always_inline void er_asked_uids(struct er_setuid *e, struct er_call *call)
{
	__u32 real = call->arg[0], effective = call->nr == NR_SETUID ? call->arg[0] : call->arg[1];

	e->new_uid = real == (__u32)-1 ? e->task.uid : real;
	e->new_euid = effective == (__u32)-1 ? e->task.euid : effective;
}

static __noinline int er_setuid(struct er_scratch *scratch, struct er_call *call, __u32 wanted)
{
	struct er_setuid e = {};
	struct er_creds *old;
	void *map = er_slot(&er_creds_slot);
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 tid = bpf_get_current_pid_tgid();

	if (!scratch || !call)
		return 0;
	e.hdr = scratch->record.exec.hdr;
	e.task = scratch->record.exec.task;
	e.hdr.len = sizeof(e);
	e.ret = call->ret;
	e.call = call->nr == NR_SETUID	   ? ER_CALL_SETUID
		 : call->nr == NR_SETREUID ? ER_CALL_SETREUID
					   : ER_CALL_SETRESUID;
	old = map ? bpf_map_lookup_elem(map, &tid) : NULL;
	if (old && old->start_ns == e.task.start_ns) {
		e.old_uid = old->uid;
		e.old_euid = old->euid;
	} else {
		e.hdr.flags |= ER_F_OLD_CREDS_UNKNOWN;
	}
	if (call->ret < 0) {
		er_asked_uids(&e, call);
	} else {
		e.new_uid = e.task.uid;
		e.new_euid = e.task.euid;
	}
	er_remember_creds(task);
	if (wanted)
		er_send(&e, sizeof(e));
	return 0;
}

static __always_inline void er_clear_file(struct er_file *e, __s32 ret)
{
	e->ino = 0;
	e->asked = 0;
	e->dev = 0;
	e->ret = ret;
	e->open_flags = 0;
	e->f_mode = 0;
	e->i_mode = 0;
	e->path_len = 0;
	e->raw_len = 0;
	e->content_len = 0;
}

/* The number in 64-bit numbering, and whether it came through the 32-bit entry; NR_NONE for a call without a handler.
 */
static __always_inline int er_classify(__u32 orig_ax, bool *compat)
{
	int native = orig_ax & ER_X32_BIT ? er_nr_x32(orig_ax & ~ER_X32_BIT) : (int)orig_ax;

	*compat = false;
	/* the task is asked for its entry only where the number means something to us in one of the two */
	if (er_event_of(native) == ER_EVENT_INVALID && er_nr_i386(orig_ax) == NR_NONE)
		return NR_NONE;
	if (er_is_compat()) {
		*compat = true;
		return er_nr_i386(orig_ax);
	}
	/* the pseudo-number is no number that a caller could use */
	return native >= NR_I386_SOCKETCALL || er_event_of(native) == ER_EVENT_INVALID ? NR_NONE : native;
}

/*
 * The descriptor a call is about. Looked up first of all: another thread can put something else in its place as soon as
 * the call has returned in the kernel. That race is made short here, and not closed (docs/operations.md).
 */
static __always_inline __s32 er_fd_of(struct er_call *call, enum er_event event)
{
	__u32 fd = call->arg[0];
	char first = 0;

	if (event == ER_EVENT_OPEN)
		return call->ret;
	if (call->nr == NR_I386_SOCKETCALL)
		bpf_probe_read_user(&fd, sizeof(fd), (void *)call->arg[1]);
	if (call->nr == NR_SPLICE || call->nr == NR_COPY_FILE_RANGE)
		return call->arg[2];
	if (event == ER_EVENT_CHMOD && call->nr != NR_FCHMOD) {
		/* by name; only an empty one (AT_EMPTY_PATH) means the descriptor */
		if (call->nr == NR_CHMOD || bpf_probe_read_user(&first, 1, (void *)call->arg[1]) || first)
			return -1;
	}
	return fd;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(er_sys_exit, struct pt_regs *regs, long ret)
{
	struct er_config *config;
	struct er_sys_scratch *own;
	struct er_scratch *scratch;
	struct er_call *call;
	enum er_event event;
	__u32 zero = 0;
	bool compat;
	int nr = er_classify(regs->orig_ax, &compat);

	if (nr == NR_NONE)
		return 0;
	event = er_event_of(nr);
	config = er_get_config();
	/* set*id calls are followed even when nobody asks for them: what they leave behind is the next one's "before"
	 */
	if (!config || (!er_wanted(config, event) && event != ER_EVENT_SETUID))
		return 0;
	own = bpf_map_lookup_elem(&er_sys_scratch, &zero);
	if (!own)
		return 0;
	scratch = &own->scratch;
	call = &own->call;
	call->nr = nr;
	call->compat = compat;
	call->ret = ret;
	er_fill_call(call, regs);
	call->file = er_file_of(er_fd_of(call, event));
	if (nr == NR_I386_SOCKETCALL && call->arg[0] != ER_SYS_CONNECT)
		return 0;
	if (event == ER_EVENT_EXEC && ret >= 0)
		return 0;
	if (!er_begin(&scratch->record.exec.hdr, &scratch->record.exec.task, config, event, 0))
		return 0;
	if (compat)
		scratch->record.exec.hdr.flags |= ER_F_COMPAT_ABI;
	switch (event) {
	case ER_EVENT_OPEN: er_clear_file(&scratch->record.file, ret); return er_open(scratch, call);
	case ER_EVENT_WRITE: er_clear_file(&scratch->record.file, ret); return er_write(scratch, call, config->content);
	case ER_EVENT_CHMOD: er_clear_file(&scratch->record.file, ret); return er_chmod(scratch, call);
	case ER_EVENT_EXEC: return er_exec_failed(scratch, call);
	case ER_EVENT_CONNECT: return er_connect(scratch, call);
	case ER_EVENT_PTRACE: return er_ptrace(scratch, call);
	case ER_EVENT_SETUID: return er_setuid(scratch, call, er_wanted(config, event));
	default: return 0;
	}
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version = ER_ABI_VERSION;
