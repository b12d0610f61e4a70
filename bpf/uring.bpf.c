// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Operations of an io_uring, as they complete: in the thread that submitted, in a worker of the process, or in the
 * kernel's polling thread, which all have the process's files. Each is recorded as the system call that does the same.
 * Before Linux 6.0 the tracepoint doesn't say which operation it was.
 */
#include "execray/common.h"
#define ER_USES_UP /* nobody is killed here, but a last step may be an operation */
#include "execray/calls/dispatch.h"

#define PF_IO_WORKER	     0x00000010
#define ER_COMPLETED_AT_ONCE 256 /* so many are looked through; a ring takes in 32,768 at most */

/* Reading and writing files, with the arguments of read and write. */
static __always_inline void er_uring_rw(struct er_call *call, struct io_kiocb *req)
{
	struct io_rw *rw = ER_REQ(io_rw, req);

	call->arg[1] = BPF_CORE_READ(rw, addr);
	call->arg[2] = BPF_CORE_READ(rw, len);
}

static __always_inline void er_uring_socket(struct er_call *call, struct io_kiocb *req, __u8 opcode)
{
	struct io_connect *connect = ER_REQ(io_connect, req);
	struct io_sr_msg *message = ER_REQ(io_sr_msg, req);
	struct io_socket *made = ER_REQ(io_socket, req);
	struct io_listen *listen = ER_REQ(io_listen, req);

	switch (opcode) {
	case IORING_OP_CONNECT:
		call->arg[1] = (__u64)BPF_CORE_READ(connect, addr);
		call->arg[2] = BPF_CORE_READ(connect, addr_len);
		break;
	case IORING_OP_SOCKET:
		call->arg[0] = (__u32)BPF_CORE_READ(made, domain);
		call->arg[1] = (__u32)BPF_CORE_READ(made, type);
		call->arg[2] = (__u32)BPF_CORE_READ(made, protocol);
		break;
	case IORING_OP_LISTEN:
		if (bpf_core_type_exists(struct io_listen))
			call->arg[1] = (__u32)BPF_CORE_READ(listen, backlog);
		break;
	case IORING_OP_SEND:
	case IORING_OP_SEND_ZC:
	case IORING_OP_RECV:
	case IORING_OP_SENDMSG:
	case IORING_OP_SENDMSG_ZC:
	case IORING_OP_RECVMSG:
		call->arg[1] = (__u64)BPF_CORE_READ(message, buf);
		call->arg[2] = (__u32)BPF_CORE_READ(message, len);
	}
}

/* Numbers only: the names are where submit.bpf.c kept them. */
static __always_inline void er_uring_name(struct er_call *call, struct io_kiocb *req, __u8 opcode)
{
	struct io_open *open = ER_REQ(io_open, req);
	struct io_unlink *unlink = ER_REQ(io_unlink, req);
	struct io_rename *rename = ER_REQ(io_rename, req);
	struct io_mkdir *mkdir = ER_REQ(io_mkdir, req);
	struct io_link *link = ER_REQ(io_link, req);
	struct io_ftrunc *truncate = ER_REQ(io_ftrunc, req);
	struct io_splice *splice = ER_REQ(io_splice, req);

	switch (opcode) {
	case IORING_OP_OPENAT:
	case IORING_OP_OPENAT2:
		call->arg[2] = BPF_CORE_READ(open, how.flags);
		call->arg[3] = BPF_CORE_READ(open, how.mode);
		break;
	case IORING_OP_UNLINKAT:
		call->arg[0] = (__u32)BPF_CORE_READ(unlink, dfd);
		call->arg[2] = (__u32)BPF_CORE_READ(unlink, flags);
		break;
	case IORING_OP_RENAMEAT:
		call->arg[0] = (__u32)BPF_CORE_READ(rename, old_dfd);
		call->arg[2] = (__u32)BPF_CORE_READ(rename, new_dfd);
		call->arg[4] = (__u32)BPF_CORE_READ(rename, flags);
		break;
	case IORING_OP_LINKAT:
		call->arg[0] = (__u32)BPF_CORE_READ(link, old_dfd);
		call->arg[2] = (__u32)BPF_CORE_READ(link, new_dfd);
		break;
	case IORING_OP_SYMLINKAT: call->arg[1] = (__u32)BPF_CORE_READ(link, new_dfd); break;
	case IORING_OP_MKDIRAT:
		call->arg[0] = (__u32)BPF_CORE_READ(mkdir, dfd);
		call->arg[2] = BPF_CORE_READ(mkdir, mode);
		break;
	case IORING_OP_FTRUNCATE:
		if (bpf_core_type_exists(struct io_ftrunc))
			call->arg[1] = BPF_CORE_READ(truncate, len);
		break;
	case IORING_OP_SPLICE: call->arg[4] = BPF_CORE_READ(splice, len);
	}
}

/* Whether the result is no descriptor of the process, but a place in the ring's own table of files. */
static __always_inline bool er_uring_own_table(struct io_kiocb *req, __u8 opcode)
{
	struct io_open *open = ER_REQ(io_open, req);
	struct io_accept *accept = ER_REQ(io_accept, req);

	if (opcode == IORING_OP_ACCEPT)
		return BPF_CORE_READ(accept, file_slot);
	return (opcode == IORING_OP_OPENAT || opcode == IORING_OP_OPENAT2) && BPF_CORE_READ(open, file_slot);
}

static __always_inline void er_uring_arguments(struct er_call *call, struct io_kiocb *req, __u8 opcode)
{
	switch (opcode) {
	case IORING_OP_READ:
	case IORING_OP_READ_FIXED:
	case IORING_OP_READV:
	case IORING_OP_WRITE:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_WRITEV: er_uring_rw(call, req); break;
	case IORING_OP_OPENAT:
	case IORING_OP_OPENAT2:
	case IORING_OP_UNLINKAT:
	case IORING_OP_RENAMEAT:
	case IORING_OP_LINKAT:
	case IORING_OP_SYMLINKAT:
	case IORING_OP_MKDIRAT:
	case IORING_OP_FTRUNCATE:
	case IORING_OP_SPLICE: er_uring_name(call, req, opcode); break;
	default: er_uring_socket(call, req, opcode);
	}
}

/*
 * The request that completed last on this CPU, told or not; and how many its ring had taken by then. When it has taken
 * more, the request's memory may be another's.
 */
struct er_completed {
	__u64 request;
	__u64 ring;
	__u64 taken;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_completed);
} er_completed SEC(".maps");

static __always_inline __u64 er_last_completed(struct io_ring_ctx *ring)
{
	__u32 zero = 0;
	struct er_completed *last = bpf_map_lookup_elem(&er_completed, &zero);

	return last && last->ring == (__u64)ring && last->taken == BPF_CORE_READ(ring, cached_sq_head) ? last->request
												       : 0;
}

static __always_inline void er_note_completed(struct io_kiocb *req)
{
	struct io_ring_ctx *ring = BPF_CORE_READ(req, ctx);
	__u32 zero = 0;
	struct er_completed *last = bpf_map_lookup_elem(&er_completed, &zero);

	if (!last)
		return;
	last->request = (__u64)req;
	last->ring = (__u64)ring;
	last->taken = BPF_CORE_READ(ring, cached_sq_head);
}

/* No function of its own: with its frame, the stack of all calls is too large for Linux 6.1. */
static __always_inline int er_tell_request(__u64 request)
{
	struct io_kiocb *req = (void *)request;
	struct er_shapes *shapes;
	struct er_shape *shape;
	struct er_scratch *scratch;
	struct er_call *call;
	__u8 opcode, skip;

	er_note_completed(req);
	shapes = er_get_shapes();
	opcode = BPF_CORE_READ(req, opcode);
	if (!shapes || opcode >= ER_URING_OPS)
		return 0;
	shape = &shapes->shape[ER_SHAPES_URING + (opcode & (ER_URING_OPS - 1))];
	if (!shape->event)
		return 0;
	skip = er_skipped(shapes, shape, er_this_task());
	if (skip & ER_ARMED_WHOLE)
		return 0;
	scratch = er_get_scratch();
	if (!scratch)
		return 0;
	call = &scratch->call;
	call->compat = false;
	call->skip = skip;
	call->own = call->uring = true;
	call->awake = false;
	call->none = -1;
	call->task = bpf_get_current_task();
	call->tgid = bpf_get_current_pid_tgid() >> 32;
	call->request = request;
	call->ring = (__u64)BPF_CORE_READ(req, ctx);
	call->user_data = BPF_CORE_READ(req, cqe.user_data);
	call->opcode = opcode;
	call->ret = BPF_CORE_READ(req, cqe.res);
	call->arg[0] = (__u64)-1;
	call->arg[1] = call->arg[2] = call->arg[3] = call->arg[4] = call->arg[5] = 0;
	er_uring_arguments(call, req, opcode);
	if (shape->fd == ER_AT_RESULT)
		call->file = er_uring_own_table(req, opcode) ? NULL : er_file_of(er_this_task(), call->ret);
	else
		call->file = shape->fd ? BPF_CORE_READ(req, file) : NULL;
	er_send_call(call, shape);
	er_ring_forget(request, opcode);
	return 0;
}

/* What comes behind the request differs from kernel to kernel, and is in the request as well. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(er_uring, void *ring, __u64 request)
{
	struct io_kiocb *req = (void *)request;

	/* one more completion of a request that goes on has none */
	if (bpf_core_field_exists(req->cqe.res) && req)
		er_tell_request(request);
	return 0;
}

static __always_inline bool er_is_completion(struct io_kiocb *req, struct io_ring_ctx *ring, __u64 user_data, __s32 res)
{
	return BPF_CORE_READ(req, ctx) == ring && BPF_CORE_READ(req, cqe.user_data) == user_data &&
	       BPF_CORE_READ(req, cqe.res) == res && !(BPF_CORE_READ(req, flags) & REQ_F_CQE_SKIP);
}

/*
 * Which request a completion is of that found no room in its ring. A worker has it in hand. Else it is one of those
 * that the ring completes at once, in the order of their list: the first that fits, behind the one that was last.
 */
static __always_inline struct io_kiocb *er_without_room(struct io_ring_ctx *ring, __u64 user_data, __s32 res)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct io_kiocb *req = NULL, *found = NULL;
	struct io_wq_work_node *node;
	struct io_worker *worker;
	__u64 last = er_last_completed(ring);
	int i;

	if (BPF_CORE_READ(task, flags) & PF_IO_WORKER) {
		worker = BPF_CORE_READ(task, worker_private);
		req = (void *)BPF_CORE_READ(worker, cur_work) - bpf_core_field_offset(req->work);
		/* some kernels tell of the completion, and then find no room for it */
		return (__u64)req != last && er_is_completion(req, ring, user_data, res) ? req : NULL;
	}
	node = BPF_CORE_READ(ring, submit_state.compl_reqs.first);
	for (i = 0; i < ER_COMPLETED_AT_ONCE; i++) {
		if (!node)
			return found;
		req = (void *)node - bpf_core_field_offset(req->comp_list);
		if ((__u64)req == last)
			found = NULL;
		else if (!found && er_is_completion(req, ring, user_data, res))
			found = req;
		node = BPF_CORE_READ(node, next);
	}
	return found;
}

/* A raw one: older kernels lack it, and would refuse the whole object. */
SEC("raw_tp/io_uring_cqe_overflow")
int er_uring_full(struct bpf_raw_tracepoint_args *args)
{
	struct io_kiocb *req = NULL;

	if (!bpf_core_field_exists(req->cqe.res))
		return 0;
	req = er_without_room((struct io_ring_ctx *)args->args[0], args->args[1], args->args[2]);
	if (req)
		er_tell_request((__u64)req);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
