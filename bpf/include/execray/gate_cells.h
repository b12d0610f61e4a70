/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cells: what the gate knows to have begun in each process. Beside the plan, for the end of a process takes it out.
 */
#ifndef EXECRAY_GATE_CELLS_H
#define EXECRAY_GATE_CELLS_H

#include "execray/gate_plan.h"

struct er_gate_cells_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_GATE_CELLS);
	__uint(key_size, sizeof(struct er_gate_cell_key));
	__uint(value_size, sizeof(struct er_gate_cell));
};

ER_SLOT(er_gate_cells_slot, struct er_gate_cells_map);

/* At the end of a process. Its pid is nobody else's before, and no thread of it is left that could begin something. */
static __always_inline void er_gate_forget(__u32 tgid)
{
	struct er_gate_cell_key key = {.tgid = tgid, .half = 1};
	void *cells = er_slot(&er_gate_cells_slot);

	if (!cells)
		return;
	bpf_map_delete_elem(cells, &key);
	key.half = 2;
	bpf_map_delete_elem(cells, &key);
}

#endif
