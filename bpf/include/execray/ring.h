/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The names that operations of an io_uring bring along. The kernel copies them as it takes a request, and has freed its
 * copies when the request completes: submit.bpf.c keeps them until then. What is kept is the kernel's own, the very
 * bytes that it then looks up.
 */
#ifndef EXECRAY_RING_H
#define EXECRAY_RING_H

#define ER_REQ(type, req) ((struct type *)&(req)->cmd)
#define ER_URING_OPS	  64
#define PF_KTHREAD	  0x00200000
#define REQ_F_CQE_SKIP	  (1 << 6) /* IOSQE_CQE_SKIP_SUCCESS_BIT: the lower bits of both are the same */

/* Which arguments of the system call of an operation are names, or texts; 0: none. */
static __always_inline void er_ring_places(__u32 opcode, __u32 *first, __u32 *second)
{
	*first = *second = 0;
	switch (opcode) {
	case IORING_OP_OPENAT:
	case IORING_OP_OPENAT2:
	case IORING_OP_UNLINKAT:
	case IORING_OP_MKDIRAT:
	case IORING_OP_FSETXATTR: *first = 2; break;
	case IORING_OP_RENAMEAT:
	case IORING_OP_LINKAT:
		*first = 2;
		*second = 4;
		break;
	case IORING_OP_SYMLINKAT:
		*first = 1;
		*second = 3;
		break;
	case IORING_OP_SETXATTR: *first = 1; *second = 2;
	}
}

/* What was kept of one of an operation's names, or NULL. What another left behind in the same memory is none of its. */
static __always_inline struct er_ring_name *er_ring_name(const struct er_call *call, __u32 place)
{
	struct er_ring_key key = {.request = call->request, .place = place};
	void *names = er_slot(&er_ring_names_slot);
	struct er_ring_name *name = names ? bpf_map_lookup_elem(names, &key) : NULL;

	if (!name || name->ring != call->ring || name->user_data != call->user_data || name->opcode != call->opcode)
		return NULL;
	return name;
}

static __always_inline void er_ring_forget(__u64 request, __u32 opcode)
{
	struct er_ring_key key = {.request = request};
	void *names = er_slot(&er_ring_names_slot);
	__u32 second;

	er_ring_places(opcode, &key.place, &second);
	if (!names || !key.place)
		return;
	bpf_map_delete_elem(names, &key);
	key.place = second;
	if (second)
		bpf_map_delete_elem(names, &key);
}

#endif
