//! `sched_process_exit`: the last thread of a process dies. The record says who will adopt its children, which makes the
//! reparenting an event of the same stream although no tracepoint reports it.
//!
//! The tracepoint comes early in do_exit: the children still have their old parent, and the memory may still be mapped.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use reaper_common::{Exit, kind};

use crate::kernel::{Signal, Task, exit_has_group_dead};
use crate::reparent::{Adoption, adopter_of};
use crate::{lineage, ring};

/// Arguments: task and, since about 6.16, whether it is the last thread (include/trace/events/sched.h).
#[btf_tracepoint(function = "sched_process_exit")]
fn process_exit(ctx: BtfTracePointContext) -> u32 {
    let Some(task) = Task::new(ctx.arg(0)) else {
        return 0;
    };
    let Some(signal) = task.signal() else {
        return 0;
    };
    let last = if exit_has_group_dead() {
        ctx.arg::<u64>(1) & 0xff != 0
    } else {
        // True for every thread that gets here after the last one lowered the count: the agent knows.
        signal.live() == 0
    };
    if last {
        died(task, signal);
    }
    0
}

/// Writes the record. Whatever is read through typed pointers comes first: where paths part after that, the verifier does not
/// go through those loads once for each ([`Typed`](crate::kernel::Typed) says what one costs).
#[inline(always)]
fn died(task: Task, signal: Signal) {
    let Some(leader) = task.group_leader() else {
        return;
    };
    let proc = task.process_led_by(leader);
    let status = signal.wait_status(leader);
    let comm = leader.comm();
    // This is the event that orphans somebody. Threads that are not released yet may have children of their own.
    let urgent = task.has_children() || signal.has_other_threads();
    // Nearly every process dies without children, and nobody asks who would adopt them; but who was pid 1 takes its pid namespace along.
    let adoption =
        if urgent || task.is_child_reaper() { adopter_of(task.leader_copied()) } else { Adoption::UNKNOWN };
    let header = ring::header(kind::EXIT);
    let record = Exit { header, proc, adopter: adoption.by, adopter_kind: adoption.kind, status, comm };
    lineage::died(&record);
    ring::write(record, header.boot_ns, urgent);
}
