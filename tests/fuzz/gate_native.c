// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The gate's core as an ordinary program, for the sanitizers: `gate_native TABLE QUESTIONS` prints a verdict for each
 * question. TABLE is a struct er_gate; QUESTIONS are struct er_gate_case, each behind its length and cut off 32 bytes
 * behind its path, so that a read past what a hook has is one past the end of memory.
 */
#include <linux/types.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define __noinline	  __attribute__((noinline))
#define ER_GATE_BARRIER() __asm__ volatile("" : : : "memory")
#define ER_GATE_KEEP(var) __asm__ volatile("" : "+r"(var))

static __always_inline __u64 load_word(const void *from)
{
	__u64 word;

	memcpy(&word, from, sizeof(word));
	return word;
}
#define ER_GATE_LOAD(from) load_word(from)
#define ER_GATE_CLOCK()	   0

#include "execray/event.h"
#include "execray/gate_plan.h"

static struct er_gate_work *the_work;
static struct er_gate *the_plan;

static struct er_gate_work *er_gate_work(void)
{
	return the_work;
}

static struct er_gate *er_gate_plan(__u32 half)
{
	return half ? the_plan : NULL;
}

#define CELLS 16 /* tests/fuzz/test_gate.py */

static struct er_gate_cell *cells[CELLS];
static __u32 owners[CELLS];

static struct er_gate_cell *er_gate_cell(struct er_gate_work *work, bool make)
{
	for (int i = 0; i < CELLS; i++) {
		if (!cells[i] && make) {
			cells[i] = calloc(1, sizeof(*cells[i]));
			owners[i] = work->tgid;
		}
		if (cells[i] && owners[i] == work->tgid)
			return cells[i];
	}
	return NULL;
}

static void er_gate_mark(struct er_gate *plan, __u64 end)
{
	plan->crowd_ns = end; /* a question is nobody's call */
}

#include "execray/gate_case.h"

static void *take(FILE *from, size_t size)
{
	void *memory = malloc(size);

	if (!memory || fread(memory, 1, size, from) != size)
		exit(2);
	return memory;
}

int main(int argc, char **argv)
{
	FILE *table = fopen(argv[1], "rb"), *questions = fopen(argv[2], "rb");
	__u32 len;

	if (argc != 3 || !table || !questions)
		return 2;
	the_plan = take(table, sizeof(*the_plan));
	while (fread(&len, sizeof(len), 1, questions) == 1) {
		struct er_gate_case *asked = take(questions, len);

		the_work = malloc(sizeof(*the_work));
		if (!the_work || !er_gate_read_case(asked))
			return 3;
		*the_work = asked->work;
		putchar(!er_gate_rests(the_plan, the_work) && er_gate_decide(the_plan, the_work) ? '1' : '0');
		free(the_work);
		free(asked);
	}
	free(the_plan);
	for (int i = 0; i < CELLS; i++)
		free(cells[i]);
	fclose(table);
	fclose(questions);
	return 0;
}
