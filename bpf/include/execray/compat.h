/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How to read the kernel's memory: by plain loads where the verifier allows them, by a helper elsewhere. */
#ifndef EXECRAY_COMPAT_H
#define EXECRAY_COMPAT_H

/* Reads behind a pointer. direct: a constant; whether the verifier knows what the pointer points to. */
#define ER_READ(direct, ...) ((direct) ? ___arrow(__VA_ARGS__) : BPF_CORE_READ(__VA_ARGS__))

/*
 * Linux 6.2 (fd264ca02094) lets a program say what a pointer points to; loads behind it are then plain ones, a tenth of
 * a helper's price. Its name alone can't be asked for before 6.4 (58aa2afbb1e6), so a type that came with that is.
 */
extern void *bpf_rdonly_cast(const void *pointer, __u32 btf_id) __ksym __weak;

static __always_inline bool er_can_cast(void)
{
	return bpf_core_type_exists(struct bpf_iter_num);
}

/* The pointer as one that ER_LOAD reads behind. */
#define ER_AS(type, pointer) \
	(er_can_cast() ? (type *)bpf_rdonly_cast((pointer), bpf_core_type_id_kernel(type)) : (type *)(pointer))
#define ER_LOAD(...) ER_READ(er_can_cast(), __VA_ARGS__)

#endif
