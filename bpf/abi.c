// SPDX-License-Identifier: GPL-2.0-or-later
/* Never loaded: names every type of the ABI once, so that its BTF has them for gen_layout.py. */
#include "vmlinux.h"
#include "execray/event.h"
#include "execray/gate_plan.h"
#include "execray/inline_plan.h"

struct er_exec er_keep_exec;
struct er_fork er_keep_fork;
struct er_exit er_keep_exit;
struct er_file er_keep_file;
struct er_plain er_keep_plain;
struct er_connect er_keep_connect;
struct er_ptrace er_keep_ptrace;
struct er_setuid er_keep_setuid;
struct er_cred_change er_keep_cred_change;
struct er_config er_keep_config;
struct er_shape er_keep_shape;
struct er_self er_keep_self;
struct er_creds er_keep_creds;
struct er_ring_key er_keep_ring_key;
struct er_ring_name er_keep_ring_name;
struct er_counts er_keep_counts;
struct er_gate er_keep_gate;
struct er_gate_cell_key er_keep_gate_cell_key;
struct er_gate_code er_keep_gate_code;
struct er_gate_file er_keep_gate_file;
struct er_gate_number er_keep_gate_number;
struct er_gate_case er_keep_gate_case;
struct er_inline_plan er_keep_inline_plan;
struct er_inline_rule er_keep_inline_rule;
struct er_inline_number er_keep_inline_number;
struct er_inline_text er_keep_inline_text;
struct er_inline_state er_keep_inline_state;
struct er_inline_cell_key er_keep_inline_cell_key;
struct er_inline_cell er_keep_inline_cell;
struct er_inline_claim_key er_keep_inline_claim_key;
enum er_inline_kind er_keep_inline_kind;
enum er_inline_part er_keep_inline_part;
enum er_gate_input er_keep_gate_input;
enum er_gate_kind er_keep_gate_kind;
enum er_gate_path er_keep_gate_path;
enum er_event er_keep_event;
enum er_flag er_keep_flag;
enum er_fact er_keep_fact;
enum er_content er_keep_content;
enum er_armed_event er_keep_armed_event;
enum er_rests er_keep_rests;
enum er_self_flag er_keep_self_flag;
enum er_setuid_call er_keep_setuid_call;
enum er_counter er_keep_counter;
