// SPDX-License-Identifier: GPL-2.0-or-later
/* Who did it: the decoy is read by one process or thread and passed on by another, or by one that looks like another.
 */
#include "evade.h"
#include <linux/sched.h>

static char loot[ROOM];
static size_t loot_len;

static void grab(void)
{
	int fd = must(open(at(DECOY), O_RDONLY), "open");

	loot_len = take(fd, loot);
	close(fd);
}

static void forged_names(void)
{
	extern char *program_invocation_name;

	must(prctl(PR_SET_NAME, "kworker/0:1", 0, 0, 0), "prctl");
	memset(program_invocation_name, 'x', strlen(program_invocation_name));
	grab();
	send_out(loot, loot_len);
}

/* Under a listed program's name, but not in its place. */
static void listed_name_copied(void)
{
	char *other, data[65536];
	int from, to;
	ssize_t len;

	if (strcmp(getenv("EVADE_COPY") ?: "", "made")) {
		if (asprintf(&other, "%s/reader", own("work")) < 0)
			_exit(3);
		must(mkdir(own("work"), 0700), "mkdir");
		from = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open");
		to = must(open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0700), "create");
		while ((len = must(read(from, data, sizeof(data)), "read")) > 0)
			must(write(to, data, (size_t)len), "write");
		close(to);
		must(setenv("EVADE_COPY", "made", 1), "setenv");
		execl(other, "reader", trick_name, NULL);
		cant("exec");
	}
	grab();
	send_out(loot, loot_len);
}

/* The program's own memory is moved away from its file, so that the kernel lets another be named in its place. */
static void unmap_own_program(void)
{
	struct span {
		unsigned long from, to;
		int protection;
	} spans[16];
	char line[PATH_MAX], self[PATH_MAX] = "", rights[8];
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	int i, count = 0;

	if (!maps || readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		cant("/proc/self");
	while (fgets(line, sizeof(line), maps) && count < 16) {
		if (!strstr(line, self) || sscanf(line, "%lx-%lx %4s", &from, &to, rights) != 3)
			continue;
		spans[count++] = (struct span){
			from, to, PROT_READ | (rights[1] == 'w' ? PROT_WRITE : 0) | (rights[2] == 'x' ? PROT_EXEC : 0)};
	}
	fclose(maps);
	for (i = 0; i < count; i++) {
		size_t len = spans[i].to - spans[i].from;
		char *copy = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (copy == MAP_FAILED)
			cant("mmap");
		memcpy(copy, (void *)spans[i].from, len);
		must(mprotect(copy, len, spans[i].protection), "mprotect");
		if (mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)spans[i].from) == MAP_FAILED)
			cant("mremap");
	}
}

/* Where the parts of this process lie, as the kernel has it: fields 26 to 28 and 45 to 51 of /proc/self/stat. */
static struct prctl_mm_map own_layout(void)
{
	struct prctl_mm_map map = {};
	unsigned long value[52] = {};
	char line[2048] = "", *word;
	int i, fd = must(open("/proc/self/stat", O_RDONLY | O_CLOEXEC), "open");

	must(read(fd, line, sizeof(line) - 1), "read");
	close(fd);
	word = strtok(strrchr(line, ')') + 1, " ");
	for (i = 3; word && i < 52; i++, word = strtok(NULL, " "))
		value[i] = strtoul(word, NULL, 10);
	map.start_code = value[26];
	map.end_code = value[27];
	map.start_stack = value[28];
	map.start_data = value[45];
	map.end_data = value[46];
	map.start_brk = value[47];
	map.brk = (uintptr_t)sbrk(0);
	map.arg_start = value[48];
	map.arg_end = value[49];
	map.env_start = value[50];
	map.env_end = value[51];
	return map;
}

static void forged_exe(void)
{
	struct prctl_mm_map map;
	int fd = must(open(at("bin/reader"), O_RDONLY), "open");

	unmap_own_program();
	map = own_layout();
	map.exe_fd = (uint32_t)fd;
	must(prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0), "prctl(PR_SET_MM_MAP)");
	grab();
	send_out(loot, loot_len);
}

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

/* From here on this process's children are of another login. */
static void log_in_as(int uid)
{
	char text[16];
	int fd = must(open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC), "open loginuid");

	must(write(fd, text, (size_t)snprintf(text, sizeof(text), "%d", uid)), "write loginuid");
	close(fd);
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

static void noise_between(void)
{
	int i;

	grab();
	for (i = 0; i < 20000; i++)
		close(must(open("/dev/null", O_WRONLY), "open"));
	send_out(loot, loot_len);
}

/*
 * Many sequences of the same kind, each of another session or another login, so that ours is pushed out. Those who
 * begin them aren't told: they do nothing but read, say so, and wait.
 */
static void among_others(int count, bool logins)
{
	int i, said[2], hold[2];
	char c;

	must(pipe2(said, O_CLOEXEC), "pipe");
	must(pipe2(hold, O_CLOEXEC), "pipe");
	grab();
	for (i = 0; i < count; i++) {
		if (must(fork(), "fork"))
			continue;
		close(report_fd);
		close(hold[1]);
		must(setsid(), "setsid");
		if (logins)
			log_in_as(60000 + i);
		if (!logins || !must(fork(), "fork")) {
			close(must(open(at(DECOY), O_RDONLY), "open"));
			must(write(said[1], "x", 1), "write");
		}
		_exit(read(hold[0], &c, 1) < 0);
	}
	for (i = 0; i < count; i++)
		must(read(said[0], &c, 1), "read");
	send_out(loot, loot_len);
	close(hold[1]);
	while (wait(NULL) > 0)
		;
}

static void crowd_between(void)
{
	among_others(1500, false);
}

static void crowd_of_logins(void)
{
	among_others(1100, true);
}

static void slow_inside_window(void)
{
	grab();
	nap_ms(2500);
	send_out(loot, loot_len);
}

static void slow_outside_window(void)
{
	grab();
	nap_ms(5300);
	send_out(loot, loot_len);
}

static const struct trick tricks[] = {
	TRICK(forged_names),
	TRICK(listed_name_copied),
	TRICK(forged_exe),
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
	TRICK(noise_between),
	TRICK(crowd_between),
	TRICK(crowd_of_logins),
	TRICK(slow_inside_window),
	TRICK(slow_outside_window),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
