// SPDX-License-Identifier: GPL-2.0-or-later
/* The decoy is read and passed on by one process, which looks like another, or hides in a crowd, in noise or in time.
 */
#include "loot.h"

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
	TRICK(forged_names),  TRICK(listed_name_copied), TRICK(forged_exe),	    TRICK(noise_between),
	TRICK(crowd_between), TRICK(crowd_of_logins),	 TRICK(slow_inside_window), TRICK(slow_outside_window),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
