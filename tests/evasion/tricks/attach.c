// SPDX-License-Identifier: GPL-2.0-or-later
/* Another process, no child of ours, is taken hold of: its word is overwritten. EVADE_VICTIM is its pid, EVADE_WORD
 * where. */
#include "int80.h"
#include "uring.h"
#include <sys/ptrace.h>
#include <sys/uio.h>

static const char word[8] = "captured";

static pid_t victim(void)
{
	return atoi(getenv("EVADE_VICTIM"));
}

static unsigned long where(void)
{
	return strtoul(getenv("EVADE_WORD"), NULL, 0);
}

static void poke(pid_t pid)
{
	long value;

	memcpy(&value, word, sizeof(value));
	must(ptrace(PTRACE_POKEDATA, pid, where(), value), "PTRACE_POKEDATA");
}

static void attach_and_poke(pid_t pid)
{
	must(ptrace(PTRACE_ATTACH, pid, 0, 0), "PTRACE_ATTACH");
	await(pid);
	poke(pid);
	must(ptrace(PTRACE_DETACH, pid, 0, 0), "PTRACE_DETACH");
}

static void overwrite(int fd)
{
	must(pwrite(fd, word, sizeof(word), (off_t)where()), "pwrite");
}

static char *mem_of(const char *format)
{
	char *path;

	if (asprintf(&path, format, victim(), victim()) < 0)
		_exit(3);
	return path;
}

static void plain(void)
{
	attach_and_poke(victim());
}

static void seized(void)
{
	pid_t pid = victim();

	must(ptrace(PTRACE_SEIZE, pid, 0, 0), "PTRACE_SEIZE");
	must(ptrace(PTRACE_INTERRUPT, pid, 0, 0), "PTRACE_INTERRUPT");
	await(pid);
	poke(pid);
	must(ptrace(PTRACE_DETACH, pid, 0, 0), "PTRACE_DETACH");
}

static void *attach_here(void *unused)
{
	attach_and_poke(victim());
	return unused;
}

static void thread_attaches(void)
{
	pthread_t thread;

	must(-pthread_create(&thread, NULL, attach_here, NULL), "pthread_create");
	pthread_join(thread, NULL);
}

static void grandchild_attaches(void)
{
	pid_t pid = branch();

	if (!pid) {
		must(setsid(), "setsid");
		if (!branch())
			attach_and_poke(victim());
		_exit(0);
	}
	await(pid);
}

static void int80_attaches(void)
{
	pid_t pid = victim();

	must(int80(I386_PTRACE, PTRACE_ATTACH, pid, 0, 0), "int 0x80 ptrace");
	await(pid);
	poke(pid);
	must(int80(I386_PTRACE, PTRACE_DETACH, pid, 0, 0), "int 0x80 ptrace");
}

/* The other program is started under our hand, by its own consent: PTRACE_TRACEME before the exec. */
static void traced_from_birth(void)
{
	pid_t pid = branch();
	int status;

	if (!pid) {
		must(ptrace(PTRACE_TRACEME, 0, 0, 0), "PTRACE_TRACEME");
		execl("/bin/true", "true", NULL);
		cant("exec");
	}
	must(waitpid(pid, &status, 0), "waitpid");
	if (!WIFSTOPPED(status))
		cant("the program did not stop");
	must(ptrace(PTRACE_POKEUSER, pid, 0, 0), "PTRACE_POKEUSER"); /* r15: it may no longer be what it was */
	report("held\n");
	must(ptrace(PTRACE_KILL, pid, 0, 0), "PTRACE_KILL");
	await(pid);
}

static void memory_written(void)
{
	struct iovec from = {(void *)word, sizeof(word)}, to = {(void *)where(), sizeof(word)};

	must(process_vm_writev(victim(), &from, 1, &to, 1, 0), "process_vm_writev");
}

static void proc_mem(void)
{
	overwrite(must(open(mem_of("/proc/%d/mem"), O_RDWR), "open"));
}

static void proc_mem_of_thread(void)
{
	overwrite(must(open(mem_of("/proc/%d/task/%d/mem"), O_WRONLY), "open"));
}

static void proc_mem_by_folder(void)
{
	int folder = must(open(mem_of("/proc/%d"), O_PATH), "open O_PATH");

	overwrite(must(openat(folder, "mem", O_RDWR), "openat"));
}

static void proc_mem_by_symlink(void)
{
	char *link = own("work");

	must(symlink(mem_of("/proc/%d/mem"), link), "symlink");
	overwrite(must(open(link, O_RDWR), "open"));
}

static void proc_mem_other_proc(void)
{
	char *other = own("work"), *path;

	own_mounts();
	must(mkdir(other, 0700), "mkdir");
	must(mount("proc", other, "proc", 0, NULL), "mount proc");
	if (asprintf(&path, "%s/%d/mem", other, victim()) < 0)
		_exit(3);
	overwrite(must(open(path, O_RDWR), "open"));
}

static void proc_mem_bound(void)
{
	char *other = own("work");

	own_mounts();
	fresh_file(other);
	must(mount(mem_of("/proc/%d/mem"), other, NULL, MS_BIND, NULL), "bind mount");
	overwrite(must(open(other, O_RDWR), "open"));
}

static void proc_mem_from_stranger(void)
{
	char data[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = data, .msg_controllen = sizeof(data)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pair[2], fd;
	pid_t pid;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	pid = branch();
	if (!pid) {
		fd = must(open(mem_of("/proc/%d/mem"), O_RDWR), "open");
		*c = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		must(sendmsg(pair[0], &msg, 0), "sendmsg");
		_exit(0);
	}
	must(recvmsg(pair[1], &msg, 0), "recvmsg");
	await(pid);
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	overwrite(fd);
}

static void uring_opens_mem(void)
{
	struct ring ring = ring_open(0);

	overwrite(ring_openat(&ring, mem_of("/proc/%d/mem"), O_RDWR));
}

static void uring_writes_mem(void)
{
	struct ring ring = ring_open(0);

	ring_write(&ring, must(open(mem_of("/proc/%d/mem"), O_RDWR), "open"), word, sizeof(word), where());
}

static const struct trick tricks[] = {
	TRICK(plain),
	TRICK(seized),
	TRICK(thread_attaches),
	TRICK(grandchild_attaches),
	TRICK(int80_attaches),
	TRICK(traced_from_birth),
	TRICK(memory_written),
	TRICK(proc_mem),
	TRICK(proc_mem_of_thread),
	TRICK(proc_mem_by_folder),
	TRICK(proc_mem_by_symlink),
	TRICK(proc_mem_other_proc),
	TRICK(proc_mem_bound),
	TRICK(proc_mem_from_stranger),
	TRICK(uring_opens_mem),
	TRICK(uring_writes_mem),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
