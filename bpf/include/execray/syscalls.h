/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls by (ABI, number). A number alone says nothing: 5 is fstat to a 64-bit caller and open to a 32-bit one,
 * and a 64-bit program may use both. Every number is turned into its 64-bit one, so handlers know one numbering.
 */
#ifndef EXECRAY_SYSCALLS_H
#define EXECRAY_SYSCALLS_H

enum er_nr {
	NR_NONE = -1,
	NR_WRITE = 1,
	NR_OPEN = 2,
	NR_PWRITE64 = 18,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_CONNECT = 42,
	NR_SENDTO = 44,
	NR_SENDMSG = 46,
	NR_EXECVE = 59,
	NR_CREAT = 85,
	NR_CHMOD = 90,
	NR_FCHMOD = 91,
	NR_PTRACE = 101,
	NR_SETUID = 105,
	NR_SETREUID = 113,
	NR_SETRESUID = 117,
	NR_OPENAT = 257,
	NR_FCHMODAT = 268,
	NR_SPLICE = 275,
	NR_PWRITEV = 296,
	NR_EXECVEAT = 322,
	NR_COPY_FILE_RANGE = 326,
	NR_PWRITEV2 = 328,
	NR_OPENAT2 = 437,
	NR_FCHMODAT2 = 452,
	NR_I386_SOCKETCALL = 1 << 16, /* no 64-bit number: the call is in its first argument */
};

#define ER_X32_BIT     0x40000000
#define ER_TS_COMPAT   0x0002 /* thread_info::status: a 32-bit entry is under way */
#define ER_SYS_CONNECT 3      /* socketcall */

static __always_inline int er_nr_i386(__u32 nr)
{
	switch (nr) {
	case 4: return NR_WRITE;
	case 5: return NR_OPEN;
	case 8: return NR_CREAT;
	case 11: return NR_EXECVE;
	case 15: return NR_CHMOD;
	case 23:
	case 213: return NR_SETUID;
	case 26: return NR_PTRACE;
	case 70:
	case 203: return NR_SETREUID;
	case 94: return NR_FCHMOD;
	case 102: return NR_I386_SOCKETCALL;
	case 146: return NR_WRITEV;
	case 164:
	case 208: return NR_SETRESUID;
	case 181: return NR_PWRITE64;
	case 187:
	case 239: return NR_SENDFILE;
	case 295: return NR_OPENAT;
	case 306: return NR_FCHMODAT;
	case 313: return NR_SPLICE;
	case 334: return NR_PWRITEV;
	case 358: return NR_EXECVEAT;
	case 362: return NR_CONNECT;
	case 369: return NR_SENDTO;
	case 370: return NR_SENDMSG;
	case 377: return NR_COPY_FILE_RANGE;
	case 379: return NR_PWRITEV2;
	case 437: return NR_OPENAT2;
	case 452: return NR_FCHMODAT2;
	}
	return NR_NONE;
}

static __always_inline int er_nr_x32(__u32 nr)
{
	switch (nr) {
	case 516: return NR_WRITEV;
	case 518: return NR_SENDMSG;
	case 520: return NR_EXECVE;
	case 521: return NR_PTRACE;
	case 535: return NR_PWRITEV;
	case 545: return NR_EXECVEAT;
	case 547: return NR_PWRITEV2;
	}
	return nr;
}

static __always_inline enum er_event er_event_of(int nr)
{
	switch (nr) {
	case NR_OPEN:
	case NR_OPENAT:
	case NR_OPENAT2:
	case NR_CREAT: return ER_EVENT_OPEN;
	case NR_WRITE:
	case NR_WRITEV:
	case NR_PWRITE64:
	case NR_PWRITEV:
	case NR_PWRITEV2:
	case NR_SENDTO:
	case NR_SENDMSG:
	case NR_SENDFILE:
	case NR_SPLICE:
	case NR_COPY_FILE_RANGE: return ER_EVENT_WRITE;
	case NR_CHMOD:
	case NR_FCHMOD:
	case NR_FCHMODAT:
	case NR_FCHMODAT2: return ER_EVENT_CHMOD;
	case NR_CONNECT:
	case NR_I386_SOCKETCALL: return ER_EVENT_CONNECT;
	case NR_EXECVE:
	case NR_EXECVEAT: return ER_EVENT_EXEC;
	case NR_PTRACE: return ER_EVENT_PTRACE;
	case NR_SETUID:
	case NR_SETREUID:
	case NR_SETRESUID: return ER_EVENT_SETUID;
	}
	return ER_EVENT_INVALID;
}

/* Calls that move bytes from one descriptor to another: the caller has no buffer that could be read. */
static __always_inline bool er_is_zero_copy(int nr)
{
	return nr == NR_SENDFILE || nr == NR_SPLICE || nr == NR_COPY_FILE_RANGE;
}

static __always_inline bool er_is_compat(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, thread_info.status) & ER_TS_COMPAT;
}

/* The registers still hold the arguments when the call returns; only rax is gone, kept in orig_ax. */
static __always_inline void er_fill_call(struct er_call *call, struct pt_regs *regs)
{
	if (call->compat) {
		call->arg[0] = (__u32)regs->bx;
		call->arg[1] = (__u32)regs->cx;
		call->arg[2] = (__u32)regs->dx;
		call->arg[3] = (__u32)regs->si;
		call->arg[4] = (__u32)regs->di;
		call->arg[5] = (__u32)regs->bp;
	} else {
		call->arg[0] = regs->di;
		call->arg[1] = regs->si;
		call->arg[2] = regs->dx;
		call->arg[3] = regs->r10;
		call->arg[4] = regs->r8;
		call->arg[5] = regs->r9;
	}
}

#endif
