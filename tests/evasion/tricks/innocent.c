// SPDX-License-Identifier: GPL-2.0-or-later
/* What looks like a trick and isn't: nothing may be said of it. Each tells by `ran` that it came to its end. */
#include "evade.h"
#include <sys/ptrace.h>

static void other_file_leaves(void)
{
	steal(at("decoy/motd"));
}

static void secret_stays(void)
{
	char data[ROOM];

	take(must(open(at(DECOY), O_RDONLY), "open"), data);
}

static void talks_then_reads(void)
{
	char data[ROOM];

	send_out("hello", 5);
	take(must(open(at(DECOY), O_RDONLY), "open"), data);
}

static void listed_program_reads(void)
{
	await(start(at("bin/reader"), at(DECOY)));
}

static void looked_at(void)
{
	struct stat st;

	must(stat(at(DECOY), &st), "stat");
	send_out("hello", 5);
}

/* Writes into the scratch folder, and runs something else. */
static void scratch_is_scratch(void)
{
	must(write(must(open(own("scratch"), O_CREAT | O_WRONLY, 0600), "create"), "notes", 5), "write");
	await(start("/bin/true", "notes"));
}

/* Writes a program elsewhere, and runs it. */
static void built_and_run(void)
{
	char *path = own("work"), data[65536];
	int from = must(open("/bin/true", O_RDONLY | O_CLOEXEC), "open");
	int to = must(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0700), "create");
	ssize_t len;

	while ((len = must(read(from, data, sizeof(data)), "read")) > 0)
		must(write(to, data, (size_t)len), "write");
	close(to);
	await(start(path, "--version"));
}

static void own_child_traced(void)
{
	pid_t pid = branch();

	if (!pid) {
		pause();
		_exit(0);
	}
	must(ptrace(PTRACE_ATTACH, pid, 0, 0), "PTRACE_ATTACH");
	await(pid);
	must(ptrace(PTRACE_DETACH, pid, 0, 0), "PTRACE_DETACH");
	kill(pid, SIGKILL);
	await(pid);
}

/* Root for most of the time, somebody else for some of it. */
static void root_comes_back(void)
{
	must(seteuid(65534), "seteuid");
	must(seteuid(0), "seteuid");
}

static void root_leaves(void)
{
	must(setresuid(65534, 65534, 65534), "setresuid");
}

static const struct trick tricks[] = {
	TRICK(other_file_leaves), TRICK(secret_stays),	     TRICK(talks_then_reads), TRICK(listed_program_reads),
	TRICK(looked_at),	  TRICK(scratch_is_scratch), TRICK(built_and_run),    TRICK(own_child_traced),
	TRICK(root_comes_back),	  TRICK(root_leaves),
};

int main(int argc, char **argv)
{
	int status = RUN(tricks, argc, argv);

	if (!status)
		report("ran\n");
	return status;
}
