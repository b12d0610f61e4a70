// SPDX-License-Identifier: GPL-2.0-or-later
/* The decoy under other names: links, spellings, mounts, roots and namespaces. What is opened is always the same file.
 */
#include "evade.h"
#include <linux/openat2.h>

static void plain(void)
{
	steal(at(DECOY));
}

static void symlink_to_it(void)
{
	char *link = own("work");

	must(symlink(at(DECOY), link), "symlink");
	steal(link);
}

static void symlink_chain(void)
{
	char *to = at(DECOY), *link;
	int i;

	for (i = 0; i < 39; i++) { /* the kernel follows 40 */
		if (asprintf(&link, "%s.%d", own("work"), i) < 0)
			_exit(3);
		must(symlink(to, link), "symlink");
		to = link;
	}
	steal(to);
}

static void hard_link(void)
{
	char *other = own("work");

	must(link(at(DECOY), other), "link");
	steal(other);
}

static void hard_link_by_dots(void)
{
	char *other = own("work");

	must(chdir(at("work")), "chdir");
	must(link("../bin/../decoy/./shadow", other), "link");
	steal(other);
}

static void hard_link_by_folder(void)
{
	char *other = own("work");

	must(linkat(must(open(at("decoy"), O_PATH), "open O_PATH"), "shadow", AT_FDCWD, other, 0), "linkat");
	steal(other);
}

static void hard_link_by_symlink(void)
{
	char *folder, *other = own("work"), *path;

	if (asprintf(&folder, "%s.folder", other) < 0 || asprintf(&path, "%s/shadow", folder) < 0)
		_exit(3);
	must(symlink(at("decoy"), folder), "symlink");
	must(link(path, other), "link");
	steal(other);
}

static void hard_link_of_descriptor(void)
{
	char *other = own("work");
	int fd = must(open(at(DECOY), O_PATH), "open O_PATH");

	must(linkat(fd, "", AT_FDCWD, other, AT_EMPTY_PATH), "linkat");
	close(fd);
	steal(other);
}

static void hard_link_before(void)
{
	/* made by somebody else, long ago */
	steal(at("old/name"));
}

static void dot_dot(void)
{
	steal(at("work/../bin/.././decoy//../decoy/shadow"));
}

static void long_spelling(void)
{
	char *path = calloc(1, PATH_MAX), *end = at(DECOY);
	size_t i;

	path[0] = '/'; /* and "./" as often as 4,095 bytes have room for it */
	for (i = 1; i + 2 + strlen(end) < PATH_MAX; i += 2)
		memcpy(path + i, "./", 2);
	strcpy(path + i, end + 1);
	steal(path);
}

static void proc_self_root(void)
{
	char *path;

	if (asprintf(&path, "/proc/self/root%s", at(DECOY)) < 0)
		_exit(3);
	steal(path);
}

static void proc_self_cwd(void)
{
	must(chdir(at("decoy")), "chdir");
	steal("/proc/self/cwd/shadow");
}

static void proc_self_fd(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%ld/shadow", must(open(at("decoy"), O_PATH), "open O_PATH"));
	steal(path);
}

static void directory_fd(void)
{
	carry_away(must(openat(must(open(at("decoy"), O_PATH), "open O_PATH"), "shadow", O_RDONLY), "openat"));
}

static void opath_reopened(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%ld", must(open(at(DECOY), O_PATH), "open O_PATH"));
	steal(path);
}

static void openat2_in_root(void)
{
	struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int folder = must(open(at("decoy"), O_PATH), "open O_PATH");

	carry_away(must(syscall(SYS_openat2, folder, "/../../../shadow", &how, sizeof(how)), "openat2"));
}

static void bind_file(void)
{
	char *other = own("work");

	own_mounts();
	fresh_file(other);
	must(mount(at(DECOY), other, NULL, MS_BIND, NULL), "bind mount");
	steal(other);
}

static void bind_relative(void)
{
	char *other = own("work");

	own_mounts();
	fresh_file(other);
	must(chdir(at("decoy")), "chdir");
	must(mount("shadow", other, NULL, MS_BIND, NULL), "bind mount");
	steal(other);
}

static void bind_folder(void)
{
	char *other = own("work");

	own_mounts();
	must(mkdir(other, 0700), "mkdir");
	must(mount(at("decoy"), other, NULL, MS_BIND, NULL), "bind mount");
	must(chdir(other), "chdir");
	steal("shadow");
}

static void other_mount_namespace(void)
{
	char *hidden = own("work"), *path;
	int ready[2], done[2];
	pid_t pid;
	char c;

	must(pipe2(ready, O_CLOEXEC), "pipe");
	must(pipe2(done, O_CLOEXEC), "pipe");
	must(mkdir(hidden, 0700), "mkdir");
	pid = branch();
	if (!pid) {
		close(done[1]);
		own_mounts();
		must(mount(at("decoy"), hidden, NULL, MS_BIND, NULL), "bind mount");
		must(write(ready[1], "x", 1), "write");
		_exit(read(done[0], &c, 1) < 0); /* until the other has what it wants */
	}
	close(ready[1]);
	must(read(ready[0], &c, 1) - 1, "the other namespace");
	if (asprintf(&path, "/proc/%d/root%s/shadow", pid, hidden) < 0)
		_exit(3);
	steal(path);
	close(done[1]);
	await(pid);
}

static void detached_tree(void)
{
	int tree =
		must(syscall(SYS_open_tree, AT_FDCWD, at("decoy"), 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC), "open_tree");

	carry_away(must(openat(tree, "shadow", O_RDONLY), "openat"));
}

static void lazy_umount(void)
{
	char *other = own("work");
	int folder;

	own_mounts();
	must(mkdir(other, 0700), "mkdir");
	must(mount(at("decoy"), other, NULL, MS_BIND, NULL), "bind mount");
	folder = must(open(other, O_PATH), "open O_PATH");
	must(umount2(other, MNT_DETACH), "umount2");
	carry_away(must(openat(folder, "shadow", O_RDONLY), "openat"));
}

static void overlay(void)
{
	char *other = own("work"), *options;

	own_mounts();
	must(mkdir(other, 0700), "mkdir");
	if (asprintf(&options, "lowerdir=%s:%s", at("decoy"), at("work")) < 0)
		_exit(3);
	must(mount("overlay", other, "overlay", MS_RDONLY, options), "mount overlay");
	must(chdir(other), "chdir");
	steal("shadow");
}

static void chroot_to_it(void)
{
	must(chroot(at("decoy")), "chroot");
	must(chdir("/"), "chdir");
	steal("/shadow");
}

static void pivot_to_it(void)
{
	char *decoy = at("decoy");

	own_mounts();
	must(mount(decoy, decoy, NULL, MS_BIND, NULL), "bind mount");
	must(chdir(decoy), "chdir");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount2");
	steal("/shadow");
}

static void file_renamed(void)
{
	char *decoy = at(DECOY), *other = own("work");

	must(rename(decoy, other), "rename");
	steal(other);
	must(rename(other, decoy), "rename");
}

static void folder_renamed(void)
{
	char *decoy = at("decoy"), *other = own("work"), *path;

	if (asprintf(&path, "%s/shadow", other) < 0)
		_exit(3);
	must(rename(decoy, other), "rename");
	steal(path);
	must(rename(other, decoy), "rename");
}

static char moving[PATH_MAX];
static volatile bool stop;

static void *rewrite(void *unused)
{
	char *decoy = at(DECOY), *harmless = at("decoy/motd");

	while (!stop) {
		memcpy(moving, decoy, strlen(decoy) + 1);
		memcpy(moving, harmless, strlen(harmless) + 1);
	}
	return unused;
}

static void path_rewritten(void)
{
	char data[ROOM];
	pthread_t thread;
	int tries, fd;

	strcpy(moving, at("decoy/motd"));
	must(-pthread_create(&thread, NULL, rewrite, NULL), "pthread_create");
	for (tries = 0; tries < 200000; tries++) {
		fd = open(moving, O_RDONLY);
		if (fd < 0)
			continue;
		size_t len = take(fd, data);
		close(fd);
		if (len > 5 && !memcmp(data, "root:", 5)) {
			stop = true;
			pthread_join(thread, NULL);
			send_out(data, len);
			return;
		}
	}
	errno = EAGAIN;
	cant("the race was never won");
}

static const struct trick tricks[] = {
	TRICK(plain),
	TRICK(symlink_to_it),
	TRICK(symlink_chain),
	TRICK(hard_link),
	TRICK(hard_link_by_dots),
	TRICK(hard_link_by_folder),
	TRICK(hard_link_by_symlink),
	TRICK(hard_link_of_descriptor),
	TRICK(hard_link_before),
	TRICK(dot_dot),
	TRICK(long_spelling),
	TRICK(proc_self_root),
	TRICK(proc_self_cwd),
	TRICK(proc_self_fd),
	TRICK(directory_fd),
	TRICK(opath_reopened),
	TRICK(openat2_in_root),
	TRICK(bind_file),
	TRICK(bind_relative),
	TRICK(bind_folder),
	TRICK(other_mount_namespace),
	TRICK(detached_tree),
	TRICK(lazy_umount),
	TRICK(overlay),
	TRICK(chroot_to_it),
	TRICK(pivot_to_it),
	TRICK(file_renamed),
	TRICK(folder_renamed),
	TRICK(path_rewritten),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
