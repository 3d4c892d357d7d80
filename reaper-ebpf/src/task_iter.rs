//! `iter/task`: a row for every live process, for the snapshot after loading and after a loss.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::bpf_seq_write;
use reaper_common::{Task as Row, flag, kind};

use crate::kernel::{Copied, Signal, Task, TaskIterator};
use crate::reparent::parent_of;
use crate::{lineage, ring};

/// aya-ebpf has no macro for iterators.
#[unsafe(no_mangle)]
#[cfg_attr(target_arch = "bpf", unsafe(link_section = "iter/task"))]
extern "C" fn process_tasks(ctx: *mut c_void) -> i32 {
    // SAFETY: the kernel calls an iterator with its context.
    let (seq, task) = unsafe { TaskIterator::of(ctx) };
    let Some(task) = Task::new(task) else {
        return 0;
    };
    // It runs seldom: see [`crate::kernel::Typed`].
    let task = task.copied();
    if task.pid() == task.tgid()
        && let Some(signal) = task.signal()
        && signal.live() > 0
    {
        row(seq, task, signal);
    }
    0
}

/// Writes the row.
#[inline(always)]
fn row(seq: *mut seq_file, leader: Task<Copied>, signal: Signal<Copied>) {
    let proc = leader.process_led_by(leader);
    let (comm, uid, sid) = (leader.comm(), leader.uid(), signal.session());
    let subreaper = if signal.is_child_subreaper() { flag::SUBREAPER } else { 0 };
    let flags = leader.birth_flags() | subreaper;
    let parent = parent_of(leader);
    let header = ring::header(kind::TASK);
    let row = Row { header, proc, parent: parent.by, parent_kind: parent.kind, flags, uid, sid, comm };
    lineage::found(&row);
    // SAFETY: the row is on the stack and as long as stated. If the kernel's buffer is full it calls again later.
    unsafe { bpf_seq_write(seq, (&raw const row).cast(), size_of::<Row>() as u32) };
}
