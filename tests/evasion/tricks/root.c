// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process that isn't root becomes root. What an exploit would have given it is given to it here: CAP_SETUID, or a
 * set-uid program. The proof is a file in a folder of root's, and root's by owner.
 */
#include "int80.h"
#include "uring.h"
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#define NOBODY 65534

#define MAY(capability) (1u << (capability))

static void set_capabilities(uint32_t permitted, uint32_t effective)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{.permitted = permitted, .effective = effective}};

	must(syscall(SYS_capset, &head, data), "capset");
}

/* Stops being root, but for some capabilities. */
static void be_nobody(uint32_t permitted, uint32_t effective)
{
	must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS");
	must(setresgid(NOBODY, NOBODY, NOBODY), "setresgid");
	must(setresuid(NOBODY, NOBODY, NOBODY), "setresuid");
	set_capabilities(permitted, effective);
	if (geteuid() != NOBODY || open(own("vault"), O_CREAT | O_WRONLY, 0600) >= 0)
		cant("nobody may write to root's folder");
}

static void prove(void)
{
	close(must(open(own("vault"), O_CREAT | O_WRONLY, 0600), "create in root's folder"));
}

static void plain(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(setuid(0), "setuid");
	prove();
}

static void setreuid_root(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(setreuid(-1, 0), "setreuid");
	prove();
}

static void saved_id_first(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(setresuid(-1, -1, 0), "setresuid");
	must(setresuid(-1, 0, -1), "setresuid");
	prove();
}

static void int80_setuid(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(int80(I386_SETUID, 0, 0, 0, 0), "int 0x80 setuid32");
	prove();
}

static void int80_setuid16(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(int80(I386_SETUID16, 0, 0, 0, 0), "int 0x80 setuid");
	prove();
}

static void int80_setreuid16(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(int80(I386_SETREUID16, 0xffff, 0, 0, 0), "int 0x80 setreuid");
	prove();
}

static void int80_setresuid16(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(int80(I386_SETRESUID16, 0xffff, 0, 0xffff, 0), "int 0x80 setresuid");
	prove();
}

static void *one_becomes_root(void *unused)
{
	must(syscall(SYS_setuid, 0), "setuid"); /* this thread only: the library would take the others along */
	prove();
	return unused;
}

static void one_thread(void)
{
	pthread_t thread;

	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	must(-pthread_create(&thread, NULL, one_becomes_root, NULL), "pthread_create");
	pthread_join(thread, NULL);
}

static void file_access_only(void)
{
	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	setfsuid(0);
	prove();
}

/* No id ever changes: what root may do is enough. */
static void capabilities_only(void)
{
	uint32_t all = MAY(CAP_DAC_OVERRIDE) | MAY(CAP_CHOWN);
	int fd;

	be_nobody(all, 0);
	set_capabilities(all, all);
	fd = must(open(own("vault"), O_CREAT | O_WRONLY, 0600), "create in root's folder");
	must(fchown(fd, 0, 0), "fchown");
}

static void grandchild(void)
{
	pid_t pid;

	be_nobody(MAY(CAP_SETUID), MAY(CAP_SETUID));
	pid = branch();
	if (!pid) {
		must(setsid(), "setsid");
		if (!branch()) {
			must(prctl(PR_SET_NAME, "sudo", 0, 0, 0), "PR_SET_NAME");
			must(setuid(0), "setuid");
			prove();
		}
		_exit(0);
	}
	await(pid);
}

/* A program with the set-uid bit that nobody packaged: no call of the family, only an exec. */
static void set_uid_program(void)
{
	struct statvfs fs;

	must(statvfs(at("bin"), &fs), "statvfs");
	errno = EPERM;
	if (fs.f_flag & ST_NOSUID)
		cant("mounted nosuid");
	be_nobody(0, 0);
	execl(at("bin/set_uid_program"), "ls", own("vault"), NULL);
	cant("exec");
}

static void capable_program(void)
{
	char attribute[64];

	must(getxattr(at("bin/capable_program"), "security.capability", attribute, sizeof(attribute)), "getxattr");
	be_nobody(0, 0);
	execl(at("bin/capable_program"), "ls", own("vault"), NULL);
	cant("exec");
}

/* A personality that was kept from better days: io_uring acts as root, and the process never does. */
static void uring_personality(void)
{
	struct ring ring = ring_open(0);
	int root = must(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_PERSONALITY, NULL, 0),
			"io_uring_register");

	be_nobody(0, 0);
	ring_do(&ring, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
					     .fd = AT_FDCWD,
					     .addr = (uintptr_t)own("vault"),
					     .len = 0600,
					     .open_flags = O_CREAT | O_WRONLY,
					     .personality = (uint16_t)root});
}

static const struct trick tricks[] = {
	TRICK(plain),
	TRICK(setreuid_root),
	TRICK(saved_id_first),
	TRICK(int80_setuid),
	TRICK(int80_setuid16),
	TRICK(int80_setreuid16),
	TRICK(int80_setresuid16),
	TRICK(one_thread),
	TRICK(file_access_only),
	TRICK(capabilities_only),
	TRICK(grandchild),
	TRICK(set_uid_program),
	TRICK(capable_program),
	TRICK(uring_personality),
};

int main(int argc, char **argv)
{
	return RUN(tricks, argc, argv);
}
