// SPDX-License-Identifier: GPL-2.0-or-later
/* A program is dropped into the scratch folder, and what was dropped is run: by other names, ways and processes. */
#include "drop.h"
#include "int80.h"
#include "uring.h"
#include <linux/memfd.h>

static void plain(void)
{
	run(drop());
}

static void written_over(void)
{
	/* there before, made by somebody else */
	char *path = at("scratch/written_over");
	int fd = must(open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), "open");

	copy_into(fd, at("bin/payload"));
	close(fd);
	run(path);
}

static void run_by_symlink(void)
{
	char *link = own("work");

	must(symlink(drop(), link), "symlink");
	run(link);
}

static void run_by_hard_link(void)
{
	char *other = own("work");

	must(link(drop(), other), "link");
	run(other);
}

static void moved_away(void)
{
	char *other = own("work");

	must(rename(drop(), other), "rename");
	run(other);
}

static void moved_in(void)
{
	char *path = own("scratch");

	must(rename(drop_as(own("work"), at("bin/payload")), path), "rename");
	run(path);
}

static void linked_in(void)
{
	char *path = own("scratch");

	must(link(drop_as(own("work"), at("bin/payload")), path), "link");
	run(path);
}

/* It changes places with a file that was there; the call names that one first. */
static void exchanged_in(void)
{
	char *path = at("scratch/standing");

	must(renameat2(AT_FDCWD, path, AT_FDCWD, drop_as(own("work"), at("bin/payload")), RENAME_EXCHANGE),
	     "renameat2");
	run(path);
}

static void mounted_in(void)
{
	char *path = at("scratch/standing");

	own_mounts();
	must(mount(drop_as(own("work"), at("bin/payload")), path, NULL, MS_BIND, NULL), "bind mount");
	run(path);
}

static void execveat_empty(void)
{
	char *argv[] = {"ls", NULL};
	int fd = must(open(drop(), O_RDONLY | O_CLOEXEC), "open");

	must(syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH), "execveat");
}

static void execveat_folder(void)
{
	char *argv[] = {"ls", NULL};
	int fd;

	drop();
	fd = must(open(at("scratch"), O_PATH | O_CLOEXEC), "open O_PATH");
	must(syscall(SYS_execveat, fd, trick_name, argv, environ, 0), "execveat");
}

static void proc_fd_run(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%ld", must(open(drop(), O_RDONLY), "open"));
	run(path);
}

static void deleted(void)
{
	char *argv[] = {"ls", NULL}, *path = drop();
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), "open");

	must(unlink(path), "unlink");
	must(syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH), "execveat");
}

/* A file that never has a name. */
static void nameless(void)
{
	char path[64];
	int fd = must(open(at("scratch"), O_TMPFILE | O_RDWR, 0700), "open O_TMPFILE"), run_fd;

	copy_into(fd, at("bin/payload"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	run_fd = must(open(path, O_RDONLY | O_CLOEXEC), "open");
	close(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", run_fd);
	run(path);
}

static void memory_file(void)
{
	char *argv[] = {"ls", NULL};
	int fd = must(syscall(SYS_memfd_create, "", MFD_CLOEXEC), "memfd_create");

	copy_into(fd, at("bin/payload"));
	must(syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH), "execveat");
}

static void bound_elsewhere(void)
{
	char *other = own("work");

	own_mounts();
	fresh_file(other);
	must(mount(drop(), other, NULL, MS_BIND, NULL), "bind mount");
	run(other);
}

static void overlaid(void)
{
	char *other = own("work"), *options;

	drop();
	own_mounts();
	must(mkdir(other, 0700), "mkdir");
	if (asprintf(&options, "lowerdir=%s:%s", at("scratch"), at("work")) < 0)
		_exit(3);
	must(mount("overlay", other, "overlay", MS_RDONLY, options), "mount overlay");
	must(chdir(other), "chdir");
	run(trick_name);
}

static void chrooted(void)
{
	char *name;

	drop();
	if (asprintf(&name, "/%s", trick_name) < 0)
		_exit(3);
	must(chroot(at("scratch")), "chroot");
	must(chdir("/"), "chdir");
	run(name);
}

/* A name of more levels than the sensor takes. */
static void deep_folders(void)
{
	char level[] = "d";
	int i, fd;

	must(chdir(at("scratch")), "chdir");
	for (i = 0; i < 150; i++) {
		if (mkdir(level, 0700) < 0 && errno != EEXIST)
			cant("mkdir");
		must(chdir(level), "chdir");
	}
	fd = must(open("x", O_CREAT | O_WRONLY | O_CLOEXEC, 0700), "create");
	copy_into(fd, at("bin/payload"));
	close(fd);
	run("./x");
}

static char *argv_of[] = {NULL, NULL};

static void *rewrite_argv(void *path)
{
	for (;;) { /* until the exec ends it */
		argv_of[0] = path;
		argv_of[0] = "/bin/true";
	}
	return NULL;
}

static void argv_rewritten(void)
{
	pthread_t thread;
	char *path = drop();

	must(-pthread_create(&thread, NULL, rewrite_argv, path), "pthread_create");
	execve(path, argv_of, environ);
	cant("exec");
}

static void *run_here(void *path)
{
	run(path);
	return NULL;
}

/* Not the first thread replaces the program; it takes over the first one's id. */
static void thread_runs(void)
{
	pthread_t thread;

	must(-pthread_create(&thread, NULL, run_here, drop()), "pthread_create");
	pthread_join(thread, NULL);
}

static void vfork_runs(void)
{
	char *path = drop();
	pid_t pid = vfork();

	if (!pid) {
		execl(path, path, NULL);
		_exit(127);
	}
	report("pid %d\n", (int)must(pid, "vfork"));
	await(pid);
}

static void grandchild_runs(void)
{
	char *path = drop();
	pid_t pid = branch();

	if (!pid) {
		must(setsid(), "setsid");
		if (!branch())
			run(path);
		_exit(0);
	}
	await(pid);
}

/* One process drops, another, no descendant of it and of another session, runs. */
static void stranger_runs(void)
{
	pid_t pid = branch();

	if (!pid) {
		must(setsid(), "setsid");
		drop();
		_exit(0);
	}
	await(pid);
	run(own("scratch"));
}

static void clone_parent_runs(void)
{
	char *path = drop();
	long pid = must(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0), "clone(CLONE_PARENT)");

	if (pid)
		report("pid %ld\n", pid);
	else
		run(path);
}

static void uring_drops(void)
{
	static char data[1 << 20];
	struct ring ring = ring_open(0);
	char *path = own("scratch");
	int from = must(open(at("bin/payload"), O_RDONLY | O_CLOEXEC), "open");
	int to = ring_openat(&ring, path, O_CREAT | O_WRONLY | O_CLOEXEC);
	size_t len = must(read(from, data, sizeof(data)), "read");

	ring_write(&ring, to, data, len, 0);
	must(fchmod(to, 0700), "fchmod");
	close(to);
	run(path);
}

static void int80_run(void)
{
	uint32_t argv[2] = {0, 0};
	char *const variable = getenv("EVADE_REPORT") - strlen("EVADE_REPORT=");
	uint32_t env[2] = {(uint32_t)low(variable), 0};
	long path = low(drop());

	argv[0] = (uint32_t)path;
	must(int80(I386_EXECVE, path, (long)low_copy(argv, sizeof(argv)), (long)low_copy(env, sizeof(env)), 0),
	     "int 0x80 execve");
}

static const struct trick tricks[] = {
	TRICK(plain),
	TRICK(written_over),
	TRICK(run_by_symlink),
	TRICK(run_by_hard_link),
	TRICK(moved_away),
	TRICK(moved_in),
	TRICK(linked_in),
	TRICK(exchanged_in),
	TRICK(mounted_in),
	TRICK(execveat_empty),
	TRICK(execveat_folder),
	TRICK(proc_fd_run),
	TRICK(deleted),
	TRICK(nameless),
	TRICK(memory_file),
	TRICK(bound_elsewhere),
	TRICK(overlaid),
	TRICK(chrooted),
	TRICK(deep_folders),
	TRICK(argv_rewritten),
	TRICK(thread_runs),
	TRICK(vfork_runs),
	TRICK(grandchild_runs),
	TRICK(stranger_runs),
	TRICK(clone_parent_runs),
	TRICK(uring_drops),
	TRICK(int80_run),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
