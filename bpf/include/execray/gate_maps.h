/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a program finds the gate's plan, and what has begun. */
#ifndef EXECRAY_GATE_MAPS_H
#define EXECRAY_GATE_MAPS_H

#include "execray/gate_cells.h"
#include "execray/gate_threads.h"

struct er_gate_files_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_GATE_FILES);
	__uint(key_size, sizeof(struct er_gate_file));
	__uint(value_size, sizeof(__u32));
};

ER_SLOT(er_gate_files_slot, struct er_gate_files_map);

/* The cell of the process that acts, made where it has none yet. NULL where it isn't to be made, or there is no room.
 */
static __always_inline struct er_gate_cell *er_gate_cell(struct er_gate_work *work, bool make)
{
	void *cells = er_slot(&er_gate_cells_slot);
	struct er_gate_cell *cell;

	if (!cells)
		return NULL;
	work->key.tgid = work->tgid; /* in memory: Linux 5.10 has no stack to spare */
	work->key.half = work->half;
	cell = bpf_map_lookup_elem(cells, &work->key);
	if (cell || !make)
		return cell;
	/* where another thread was faster it is that thread's */
	bpf_map_update_elem(cells, &work->key, &work->fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(cells, &work->key);
}

#endif
