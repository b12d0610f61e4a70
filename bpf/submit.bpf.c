// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Operations of an io_uring, as the kernel takes them: keeps the names that uring.bpf.c tells when they complete. The
 * tracepoint has two names, of which a kernel has one, so the programs are of the kind that is asked for it only when
 * it is attached.
 */
#include "execray/common.h"
#include "execray/ring.h"

/* Linux 7.0 put a struct with the pointer in it where the pointer was. */
struct delayed_filename___new {
	struct filename *__incomplete_filename;
} __attribute__((preserve_access_index));

struct io_open___new {
	struct delayed_filename___new filename;
} __attribute__((preserve_access_index));

struct io_unlink___new {
	struct delayed_filename___new filename;
} __attribute__((preserve_access_index));

struct io_mkdir___new {
	struct delayed_filename___new filename;
} __attribute__((preserve_access_index));

struct io_xattr___new {
	struct delayed_filename___new filename;
} __attribute__((preserve_access_index));

struct io_rename___new {
	struct delayed_filename___new oldpath, newpath;
} __attribute__((preserve_access_index));

struct io_link___new {
	struct delayed_filename___new oldpath, newpath;
} __attribute__((preserve_access_index));

#define ER_NAME(to, type, req, member)                                                                    \
	do {                                                                                              \
		struct filename *er_name;                                                                 \
                                                                                                          \
		if (bpf_core_field_exists(ER_REQ(type##___new, req)->member))                             \
			er_name = BPF_CORE_READ(ER_REQ(type##___new, req), member.__incomplete_filename); \
		else                                                                                      \
			er_name = BPF_CORE_READ(ER_REQ(type, req), member);                               \
		*(to) = BPF_CORE_READ(er_name, name);                                                     \
	} while (0)

/* A value of the map, too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_ring_name);
} er_taken SEC(".maps");

/* Where the kernel's copies of the names are, in the order of er_ring_places(). */
static __always_inline void er_names_of(struct io_kiocb *req, __u32 opcode, const char **first, const char **second)
{
	struct io_xattr *xattr = ER_REQ(io_xattr, req);

	*first = *second = NULL;
	switch (opcode) {
	case IORING_OP_OPENAT:
	case IORING_OP_OPENAT2: ER_NAME(first, io_open, req, filename); break;
	case IORING_OP_UNLINKAT: ER_NAME(first, io_unlink, req, filename); break;
	case IORING_OP_MKDIRAT: ER_NAME(first, io_mkdir, req, filename); break;
	case IORING_OP_RENAMEAT:
		ER_NAME(first, io_rename, req, oldpath);
		ER_NAME(second, io_rename, req, newpath);
		break;
	case IORING_OP_LINKAT:
	case IORING_OP_SYMLINKAT:
		ER_NAME(first, io_link, req, oldpath);
		ER_NAME(second, io_link, req, newpath);
		break;
	case IORING_OP_SETXATTR:
		ER_NAME(first, io_xattr, req, filename);
		*second = (const char *)BPF_CORE_READ(xattr, ctx.kname);
		break;
	case IORING_OP_FSETXATTR: *first = (const char *)BPF_CORE_READ(xattr, ctx.kname);
	}
}

static __always_inline void er_keep(struct io_kiocb *req, __u32 opcode, __u32 place, const char *from)
{
	struct er_ring_key key = {.request = (__u64)req, .place = place};
	void *names = er_slot(&er_ring_names_slot);
	struct er_ring_name *name;
	__u32 zero = 0;
	long len;

	name = bpf_map_lookup_elem(&er_taken, &zero);
	if (!name || !names || !from)
		return;
	len = bpf_probe_read_kernel_str(name->text, sizeof(name->text), from);
	if (len <= 0)
		return;
	name->time_ns = bpf_ktime_get_boot_ns();
	name->ring = (__u64)BPF_CORE_READ(req, ctx);
	name->user_data = BPF_CORE_READ(req, cqe.user_data);
	name->opcode = opcode;
	name->len = len - 1;
	if (bpf_map_update_elem(names, &key, name, BPF_ANY))
		er_count(ER_COUNT_NAMES_FULL);
}

static __always_inline int er_submitted(struct io_kiocb *req)
{
	struct er_shapes *shapes = er_get_shapes();
	const char *first_name, *second_name;
	__u32 opcode, first, second;
	struct er_shape *shape;

	if (!shapes || !bpf_core_field_exists(req->cqe.res))
		return 0;
	opcode = BPF_CORE_READ(req, opcode);
	er_ring_places(opcode, &first, &second);
	if (!first)
		return 0;
	shape = &shapes->shape[ER_SHAPES_URING + (opcode & (ER_URING_OPS - 1))];
	/* nobody comes for the names of a request that asks for no completion */
	if (!shape->event || er_skipped(shapes, shape, er_this_task()) & ER_ARMED_WHOLE ||
	    BPF_CORE_READ(req, flags) & REQ_F_CQE_SKIP)
		return 0;
	er_names_of(req, opcode, &first_name, &second_name);
	er_keep(req, opcode, first, first_name);
	if (second)
		er_keep(req, opcode, second, second_name);
	return 0;
}

/* since Linux 6.4 */
SEC("raw_tp/io_uring_submit_req")
int er_submit_req(struct bpf_raw_tracepoint_args *args)
{
	return er_submitted((struct io_kiocb *)args->args[0]);
}

SEC("raw_tp/io_uring_submit_sqe")
int er_submit_sqe(struct bpf_raw_tracepoint_args *args)
{
	return er_submitted((struct io_kiocb *)args->args[0]);
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
