//! `sched_process_fork`: a process is born. It is not running yet, so its record comes before all others about it.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use reaper_common::{Fork, Proc, kind};

use crate::kernel::{Signal, Task};
use crate::{lineage, ring};

/// Arguments: parent, child (include/trace/events/sched.h). The first is who called; with `CLONE_PARENT` it is not the
/// parent, so it is not read.
#[btf_tracepoint(function = "sched_process_fork")]
fn process_fork(ctx: BtfTracePointContext) -> u32 {
    if let Some(child) = Task::new(ctx.arg(1))
        && child.pid() == child.tgid()
    {
        born(child);
    }
    0
}

/// Writes the record. Where paths part comes last: see [`crate::exit`].
#[inline(always)]
fn born(child: Task) {
    let proc = child.process_led_by(child);
    let (comm, uid, sid) = (child.comm(), child.uid(), child.signal().map_or(0, Signal::session));
    let parent = match child.real_parent() {
        Some(parent) => parent.process(),
        None => Proc::default(),
    };
    let flags = child.birth_flags();
    let header = ring::header(kind::FORK);
    let record = Fork { header, child: proc, parent, comm, uid, sid, flags, _pad: 0 };
    lineage::born(&record);
    ring::write(record, header.boot_ns, false);
}
