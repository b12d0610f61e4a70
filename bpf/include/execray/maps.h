/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maps that all objects share. pylibbpf can't give an object maps that exist already, so each object has one-element
 * arrays of maps instead, the slots, and tracerd puts the shared maps into them before it attaches anything. An empty
 * slot can't happen then, and is "nothing wanted" to the verifier.
 */
#ifndef EXECRAY_MAPS_H
#define EXECRAY_MAPS_H

/* libbpf makes a slot's inner map only as a pattern for the verifier: the ring's real size is tracerd's choice. */
#define ER_RING_PATTERN 4096
#define ER_FOLLOWED	4 /* what is only followed may fill one part of so many of the ring */
#define ER_SELF_MAX	1024
#define ER_CREDS_MAX	65536
#define ER_ARMED_MAX	8192
#define ER_RING_NAMES	1024

#define ER_SLOT(slot, inner)                              \
	struct {                                          \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); \
		__uint(max_entries, 1);                   \
		__type(key, __u32);                       \
		__array(values, inner);                   \
	} slot SEC(".maps")

/*
 * A table that each call asks. The object of the system calls has it itself, and the others get that one in a slot: a
 * slot is one more place in memory that must be loaded before anything is known of a call.
 */
#ifdef ER_HAS_TABLES
#define ER_TABLE(name, inner)  struct inner name SEC(".maps")
#define ER_TABLE_AT(name, key) bpf_map_lookup_elem(&name, key)
#else
#define ER_TABLE(name, inner)  ER_SLOT(name##_slot, struct inner)
#define ER_TABLE_AT(name, key) er_slot_at(&name##_slot, key)
#endif

/* Sizes instead of types: behind two pointers the compiler leaves only a struct's name in the BTF. */
struct er_ring_map {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ER_RING_PATTERN);
};

struct er_counter_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_counts));
};

struct er_shapes_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_shapes));
};

struct er_self_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_SELF_MAX);
	__uint(key_size, sizeof(__u32)); /* tgid */
	__uint(value_size, sizeof(struct er_self));
};

struct er_creds_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_CREDS_MAX);
	__uint(key_size, sizeof(__u32)); /* tid */
	__uint(value_size, sizeof(struct er_creds));
};

struct er_armed_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_ARMED_MAX);
	__uint(key_size, sizeof(__u32));   /* tgid */
	__uint(value_size, sizeof(__u64)); /* its start_ns */
};

struct er_ring_names_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_RING_NAMES);
	__uint(key_size, sizeof(struct er_ring_key));
	__uint(value_size, sizeof(struct er_ring_name));
};

ER_SLOT(er_ring_slot, struct er_ring_map);
ER_SLOT(er_counter_slot, struct er_counter_map);
ER_TABLE(er_shapes, er_shapes_map);
ER_SLOT(er_self_slot, struct er_self_map);
ER_SLOT(er_creds_slot, struct er_creds_map);
ER_SLOT(er_armed_slot, struct er_armed_map);
ER_SLOT(er_ring_names_slot, struct er_ring_names_map);

static __always_inline void *er_slot(void *slot)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(slot, &zero);
}

static __always_inline void *er_slot_at(void *slot, const void *key)
{
	void *map = er_slot(slot);

	return map ? bpf_map_lookup_elem(map, key) : NULL;
}

static __always_inline __u64 *er_counter(enum er_counter which)
{
	void *counters = er_slot(&er_counter_slot);
	struct er_counts *counts;
	__u32 zero = 0;

	counts = counters ? bpf_map_lookup_elem(counters, &zero) : NULL;
	return counts ? &counts->value[which] : NULL;
}

/* Exact: also where an interrupt's program counts on the same CPU meanwhile. */
static __always_inline void er_count(enum er_counter which)
{
	__u64 *value = er_counter(which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* For what happens all the time, and may be off by one: without a locked instruction. */
static __always_inline void er_count_often(enum er_counter which)
{
	__u64 *value = er_counter(which);

	if (value)
		++*value;
}

static __always_inline struct er_shapes *er_get_shapes(void)
{
	__u32 zero = 0;

	return ER_TABLE_AT(er_shapes, &zero);
}

static __always_inline struct er_config *er_get_config(void)
{
	struct er_shapes *shapes = er_get_shapes();

	return shapes ? &shapes->config : NULL;
}

static __always_inline bool er_wanted(const struct er_config *config, enum er_event event)
{
	/* those of packages are switched by their shapes, or by their objects' kinds */
	return event >= ER_EVENT_OWN || config->wanted & (1ULL << event);
}

/*
 * Whether there is room for what no policy wants, and is sent for somebody's sake who follows all of its kind. Most of
 * the ring is kept for detection: however many come, they can't push out what a policy wants.
 */
static __always_inline bool er_has_room(void)
{
	void *ring = er_slot(&er_ring_slot);

	if (ring &&
	    bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / ER_FOLLOWED)
		return true;
	er_count(ER_COUNT_REFUSED);
	return false;
}

/*
 * Whether something may have to be done at events of this kind whatever they are. The mask has no place for what
 * packages add.
 */
static __always_inline bool er_is_urgent(const struct er_header *header)
{
	struct er_config *config = er_get_config();

	return header->kind >= ER_EVENT_OWN || (config && config->urgent >> (header->kind & 63) & 1);
}

/*
 * Whether with so many bytes more as much has gathered as the reader shall have at once, so that neither the ring fills
 * up while it rests, nor what is urgent stands behind many others. Two programs at once may both not see it; then the
 * next multiple tells.
 */
static __always_inline bool er_is_much(__u64 len)
{
	void *ring = er_slot(&er_ring_slot);
	__u64 before = ring ? bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) : 0;
	__u64 taken = (len + BPF_RINGBUF_HDR_SZ + 7) & ~7ULL; /* as the ring moves on */

	return before / ER_GATHERED != (before + taken) / ER_GATHERED;
}

/* Puts a record that begins with a header into the ring. flags: BPF_RB_*. Returns whether there was room for it. */
static __always_inline bool er_put(struct er_header *header, __u64 len, __u64 flags)
{
	void *ring = er_slot(&er_ring_slot);

	if (ring && bpf_ringbuf_output(ring, header, len, flags) == 0) {
		er_count_often(ER_COUNT_SENT);
		return true;
	}
	er_count(ER_COUNT_DROPPED);
	return false;
}

/*
 * Sends a record that begins with a header. Without flags the kernel wakes the reader only when it had caught up, which
 * it hasn't while it lets records gather (tracerd/pacing.py). Returns whether there was room for it.
 */
static __always_inline bool er_send_as(struct er_header *header, __u64 len, bool urgent)
{
	__u64 flags = urgent || er_is_much(len) ? BPF_RB_FORCE_WAKEUP : 0;

	if (urgent)
		header->kind |= ER_KIND_URGENT;
	return er_put(header, len, flags);
}

static __always_inline bool er_send(void *record, __u64 len)
{
	return er_send_as(record, len, er_is_urgent(record));
}

#endif
