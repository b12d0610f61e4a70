// SPDX-License-Identifier: GPL-2.0-or-later
/* The decoy without opening it oneself: descriptors that others opened, file handles, io_uring. */
#include "uring.h"
#include <sys/fanotify.h>
#include <sys/uio.h>

static void fd_from_stranger(void)
{
	char data[CMSG_SPACE(sizeof(int))] = {}, byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = data, .msg_controllen = sizeof(data)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pair[2], fd;
	pid_t pid;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	pid = branch();
	if (!pid) { /* no ancestor of the one who sends, and of another session */
		must(setsid(), "setsid");
		fd = must(open(at(DECOY), O_RDONLY), "open");
		*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		must(sendmsg(pair[0], &msg, 0), "sendmsg");
		_exit(0);
	}
	must(recvmsg(pair[1], &msg, 0), "recvmsg");
	await(pid);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	carry_away(fd);
}

/* A listed program that has the decoy open as descriptor 9, and waits until it is ended. */
static pid_t reader(void)
{
	int ready[2];
	pid_t pid;
	char c;

	must(pipe2(ready, O_CLOEXEC), "pipe");
	pid = branch();
	if (!pid) {
		must(setsid(), "setsid");
		must(dup2(ready[1], 8), "dup2");
		execl(at("bin/reader"), "reader", at(DECOY), NULL);
		cant("exec");
	}
	close(ready[1]);
	must(read(ready[0], &c, 1) - 1, "the reader");
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	await(pid);
}

static int steal_from(pid_t pid)
{
	return must(syscall(SYS_pidfd_getfd, must(syscall(SYS_pidfd_open, pid, 0), "pidfd_open"), 9, 0), "pidfd_getfd");
}

static void pidfd_getfd_stolen(void)
{
	pid_t pid = reader();

	carry_away(steal_from(pid));
	end(pid);
}

static void send_mapped(int fd)
{
	struct stat st;
	char *data;

	must(fstat(fd, &st), "fstat");
	data = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		cant("mmap");
	send_out(data, st.st_size);
}

static void stolen_and_mapped(void)
{
	pid_t pid = reader();

	send_mapped(steal_from(pid));
	end(pid);
}

static void stolen_and_sendfile(void)
{
	pid_t pid = reader();

	must(sendfile(dial(), steal_from(pid), NULL, ROOM), "sendfile");
	end(pid);
}

static void proc_fd_of_another(void)
{
	pid_t pid = reader();
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/9", pid);
	steal(path);
	end(pid);
}

/* The kernel opens the decoy for who watches it, whenever somebody else does. */
static int watched_open(pid_t *opener)
{
	struct fanotify_event_metadata event;
	int watch = must(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), "fanotify_init");

	must(fanotify_mark(watch, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, at(DECOY)), "fanotify_mark");
	*opener = reader();
	must(read(watch, &event, sizeof(event)), "read of a fanotify event");
	return must(event.fd, "fanotify's descriptor");
}

static void fanotify_gives_it(void)
{
	pid_t pid;

	carry_away(watched_open(&pid));
	end(pid);
}

static void fanotify_and_sendfile(void)
{
	pid_t pid;
	int fd = watched_open(&pid);

	must(sendfile(dial(), fd, NULL, ROOM), "sendfile");
	end(pid);
}

static void file_handle(void)
{
	struct {
		struct file_handle head;
		unsigned char bytes[MAX_HANDLE_SZ];
	} handle = {.head.handle_bytes = MAX_HANDLE_SZ};
	int mount_id, folder = must(open(at("work"), O_RDONLY | O_DIRECTORY), "open a folder");

	must(name_to_handle_at(AT_FDCWD, at(DECOY), &handle.head, &mount_id, 0), "name_to_handle_at");
	carry_away(must(open_by_handle_at(folder, &handle.head, O_RDONLY), "open_by_handle_at"));
}

static void uring_open(void)
{
	struct ring ring = ring_open(0);

	carry_away(ring_openat(&ring, at(DECOY), O_RDONLY));
}

static void uring_open_polled(void)
{
	struct ring ring = ring_open(IORING_SETUP_SQPOLL);

	carry_away(ring_openat(&ring, at(DECOY), O_RDONLY));
}

/* The file is opened into the ring's own table: no descriptor of the process ever refers to it. */
static void uring_own_table(void)
{
	struct ring ring = ring_open(0);
	int table[1] = {-1};
	char data[ROOM];
	size_t len;

	must(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, table, 1), "io_uring_register");
	ring_do(&ring,
		(struct io_uring_sqe){
			.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)at(DECOY), .file_index = 1});
	len = ring_do(&ring, (struct io_uring_sqe){.opcode = IORING_OP_READ,
						   .flags = IOSQE_FIXED_FILE,
						   .fd = 0,
						   .addr = (uintptr_t)data,
						   .len = sizeof(data)});
	send_out(data, len);
}

/* Neither the open nor the read asks for a completion; that they are done shows by what they did. */
static void uring_silent(void)
{
	struct ring ring = ring_open(0);
	int next = must(dup(ring.fd), "dup"), tries;
	volatile char data[ROOM] = "";
	struct stat st;

	close(next); /* the lowest that is free: what the open will return */
	ring_begin(&ring, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
						.flags = IOSQE_CQE_SKIP_SUCCESS,
						.fd = AT_FDCWD,
						.addr = (uintptr_t)at(DECOY)});
	for (tries = 0; tries < 5000 && fcntl(next, F_GETFD) < 0; tries++)
		nap_ms(1);
	must(fstat(next, &st), "fstat");
	ring_begin(&ring, (struct io_uring_sqe){.opcode = IORING_OP_READ,
						.flags = IOSQE_CQE_SKIP_SUCCESS,
						.fd = next,
						.addr = (uintptr_t)data,
						.len = (uint32_t)st.st_size}); /* a short read is no success */
	for (tries = 0; tries < 5000 && !data[0]; tries++)
		nap_ms(1);
	send_out((const char *)data, strlen((const char *)data));
}

/* Nobody takes completions, so there is soon no room for more. */
static void uring_no_room(void)
{
	struct ring ring = ring_open(0);
	int next = must(dup(ring.fd), "dup"), tries, i;
	volatile char data[ROOM] = "";

	close(next);
	for (i = 0; i <= (int)*ring.cq_mask; i++)
		ring_begin(&ring, (struct io_uring_sqe){.opcode = IORING_OP_NOP});
	ring_begin(&ring,
		   (struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)at(DECOY)});
	for (tries = 0; tries < 5000 && fcntl(next, F_GETFD) < 0; tries++)
		nap_ms(1);
	ring_begin(&ring,
		   (struct io_uring_sqe){
			   .opcode = IORING_OP_READ, .fd = next, .addr = (uintptr_t)data, .len = sizeof(data) - 1});
	for (tries = 0; tries < 5000 && !data[0]; tries++)
		nap_ms(1);
	send_out((const char *)data, strlen((const char *)data));
}

static void uring_links(void)
{
	struct ring ring = ring_open(0);
	char *other = own("work");

	ring_do(&ring, (struct io_uring_sqe){.opcode = IORING_OP_LINKAT,
					     .fd = AT_FDCWD,
					     .addr = (uintptr_t)at(DECOY),
					     .len = (uint32_t)AT_FDCWD,
					     .addr2 = (uintptr_t)other});
	steal(other);
}

static void uring_read(void)
{
	struct ring ring = ring_open(0);
	char data[ROOM];

	send_out(data, ring_read(&ring, must(open(at(DECOY), O_RDONLY), "open"), data));
}

static void uring_connect(void)
{
	struct ring ring = ring_open(0);
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	int fd = ring_dial(&ring);

	ring_send(&ring, fd, data, len);
}

static void uring_all(void)
{
	struct ring ring = ring_open(0);
	char data[ROOM];
	size_t len = ring_read(&ring, ring_openat(&ring, at(DECOY), O_RDONLY), data);
	int fd = ring_dial(&ring);

	ring_send(&ring, fd, data, len);
}

/* A listed program that has read the decoy; where it lies in its memory. */
static pid_t rememberer(void **where)
{
	int told[2];
	pid_t pid;

	must(pipe2(told, O_CLOEXEC), "pipe");
	pid = branch();
	if (!pid) {
		must(dup2(told[1], 8), "dup2");
		execl(at("bin/reader"), "reader", "--remember", at(DECOY), NULL);
		cant("exec");
	}
	close(told[1]);
	must(read(told[0], where, sizeof(*where)) - (long)sizeof(*where), "the reader");
	close(told[0]);
	return pid;
}

static void memory_of_a_reader(void)
{
	char data[ROOM];
	struct iovec to = {data, sizeof(data)}, from = {NULL, sizeof(data)};
	pid_t pid = rememberer(&from.iov_base);

	send_out(data, must(process_vm_readv(pid, &to, 1, &from, 1, 0), "process_vm_readv"));
	end(pid);
}

static void proc_mem_of_a_reader(void)
{
	char data[ROOM], path[64];
	void *where;
	pid_t pid = rememberer(&where);

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	send_out(data, must(pread(must(open(path, O_RDONLY), "open"), data, sizeof(data), (off_t)where), "pread"));
	end(pid);
}

static void mapped(void)
{
	send_mapped(must(open(at(DECOY), O_RDONLY), "open"));
}

static void reader_preloaded(void)
{
	must(setenv("LD_PRELOAD", at("bin/preload.so"), 1), "setenv");
	await(start(at("bin/reader"), at(DECOY)));
}

static void reader_impersonated(void)
{
	own_mounts();
	must(mount(at("bin/names"), at("bin/reader"), NULL, MS_BIND, NULL), "bind mount");
	execl(at("bin/reader"), "reader", "plain", NULL);
	cant("exec");
}

static void reader_asked(void)
{
	char data[ROOM];
	int out[2];
	pid_t pid;

	must(pipe2(out, O_CLOEXEC), "pipe");
	pid = branch();
	if (!pid) {
		must(dup2(out[1], 1), "dup2");
		execl(at("bin/reader"), "reader", "--print", at(DECOY), NULL);
		cant("exec");
	}
	await(pid);
	send_out(data, take(out[0], data));
}

static const struct trick tricks[] = {
	TRICK(fd_from_stranger),
	TRICK(pidfd_getfd_stolen),
	TRICK(stolen_and_mapped),
	TRICK(stolen_and_sendfile),
	TRICK(proc_fd_of_another),
	TRICK(fanotify_gives_it),
	TRICK(fanotify_and_sendfile),
	TRICK(file_handle),
	TRICK(uring_open),
	TRICK(uring_open_polled),
	TRICK(uring_own_table),
	TRICK(uring_silent),
	TRICK(uring_no_room),
	TRICK(uring_links),
	TRICK(uring_read),
	TRICK(uring_connect),
	TRICK(uring_all),
	TRICK(memory_of_a_reader),
	TRICK(proc_mem_of_a_reader),
	TRICK(mapped),
	TRICK(reader_preloaded),
	TRICK(reader_impersonated),
	TRICK(reader_asked),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
