// SPDX-License-Identifier: GPL-2.0-or-later
/* What is dropped is no program to the kernel: scripts, libraries, bytes. */
#include "drop.h"
#include <linux/memfd.h>

static void script(void)
{
	run(drop_script());
}

/* The script isn't ours, its interpreter is. */
static void interpreter_dropped(void)
{
	char *line, *outside = own("work");
	int fd = must(open(outside, O_CREAT | O_WRONLY | O_CLOEXEC, 0700), "create"), len;

	len = asprintf(&line, "#!%s\n", drop());
	if (len < 0)
		_exit(3);
	must(write(fd, line, (size_t)len), "write");
	close(fd);
	run(outside);
}

static void script_as_text(void)
{
	char text[ROOM] = "";
	int fd = must(open(drop_script(), O_RDONLY | O_CLOEXEC), "open");

	must(read(fd, text, sizeof(text) - 1), "read");
	execl("/bin/sh", "sh", "-c", text, NULL);
	cant("exec");
}

static void script_as_argument(void)
{
	execl("/bin/sh", "sh", drop_script(), NULL);
	cant("exec");
}

static void script_by_relative_name(void)
{
	drop_script();
	must(chdir(at("scratch")), "chdir");
	execl("/bin/sh", "sh", trick_name, NULL);
	cant("exec");
}

static void script_from_stdin(void)
{
	must(dup2(must(open(drop_script(), O_RDONLY), "open"), 0), "dup2");
	execl("/bin/sh", "sh", NULL);
	cant("exec");
}

static void renamed_interpreter(void)
{
	char *shell = drop_as(own("work"), "/bin/sh");

	execl(shell, "top", drop_script(), NULL);
	cant("exec");
}

static void loader_asked(void)
{
	char *command;

	if (asprintf(&command, "/lib64/ld-linux-x86-64.so.2 %s && echo ran >/proc/self/fd/%d",
		     drop_as(own("scratch"), "/bin/true"), report_fd) < 0)
		_exit(3);
	execl("/bin/sh", "sh", "-c", command, NULL);
	cant("exec");
}

/* The bytes that are dropped are no program: they are brought into memory and jumped to. They return 4711. */
static const unsigned char code[] = {0xb8, 0x67, 0x12, 0, 0, 0xc3};

static int drop_code(void)
{
	int fd = must(open(own("scratch"), O_CREAT | O_RDWR | O_CLOEXEC, 0600), "create");

	must(write(fd, code, sizeof(code)), "write");
	return fd;
}

static void *memory(int protection, int flags, int fd)
{
	void *found = mmap(NULL, 4096, protection, MAP_PRIVATE | flags, fd, 0);

	if (found == MAP_FAILED)
		cant("mmap");
	return found;
}

static void jump_to(void *where)
{
	int (*function)(void);

	memcpy(&function, &where, sizeof(function));
	if (function() == 4711)
		report("ran\n");
}

static void code_mapped(void)
{
	jump_to(memory(PROT_READ | PROT_EXEC, 0, drop_code()));
}

static void code_in_plain_memory(void)
{
	void *where = memory(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_ANONYMOUS, -1);

	must(pread(drop_code(), where, 4096, 0), "read");
	jump_to(where);
}

static void code_made_executable(void)
{
	void *where = memory(PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);

	must(pread(drop_code(), where, 4096, 0), "read");
	must(mprotect(where, 4096, PROT_READ | PROT_EXEC), "mprotect");
	jump_to(where);
}

static void code_from_memory_file(void)
{
	int fd = must(syscall(SYS_memfd_create, "", MFD_CLOEXEC), "memfd_create");

	must(sendfile(fd, drop_code(), &(off_t){0}, sizeof(code)), "sendfile");
	jump_to(memory(PROT_READ | PROT_EXEC, 0, fd));
}

static void library_preloaded(void)
{
	must(setenv("LD_PRELOAD", drop_as(own("scratch"), at("bin/loaded.so")), 1), "setenv");
	execl("/bin/true", "true", NULL);
	cant("exec");
}

static const struct trick tricks[] = {
	TRICK(script),
	TRICK(interpreter_dropped),
	TRICK(script_as_text),
	TRICK(script_as_argument),
	TRICK(script_by_relative_name),
	TRICK(script_from_stdin),
	TRICK(renamed_interpreter),
	TRICK(loader_asked),
	TRICK(code_mapped),
	TRICK(code_in_plain_memory),
	TRICK(code_made_executable),
	TRICK(code_from_memory_file),
	TRICK(library_preloaded),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
