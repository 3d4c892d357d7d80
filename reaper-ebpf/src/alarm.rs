//! `iter/task`: a row for every watched process that says whether its real-time interval timer runs (alarm(2),
//! setitimer(2)). Nothing else tells: /proc shows POSIX timers only.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::bpf_seq_write;
use reaper_common::observed::{Alarm, armed};

use crate::kernel::{Signal, Task, TaskIterator};
use crate::watched;

/// aya-ebpf has no macro for iterators.
#[unsafe(no_mangle)]
#[cfg_attr(target_arch = "bpf", unsafe(link_section = "iter/task"))]
extern "C" fn observe_alarm(ctx: *mut c_void) -> i32 {
    // SAFETY: the kernel calls an iterator with its context.
    let (seq, task) = unsafe { TaskIterator::of(ctx) };
    let Some(leader) = Task::new(task) else {
        return 0;
    };
    let tgid = leader.tgid();
    if leader.pid() == tgid
        && let Some(watched) = watched::find(tgid)
        && watched::is(watched, leader.process())
        && let Some(signal) = leader.signal()
    {
        row(seq, leader, signal);
    }
    0
}

/// Writes the row.
#[inline(always)]
fn row(seq: *mut seq_file, leader: Task, signal: Signal) {
    let armed = match signal.has_alarm() {
        Some(true) => armed::YES,
        Some(false) => armed::NO,
        None => armed::UNKNOWN,
    };
    let row = Alarm { proc: leader.process(), armed, _pad: 0 };
    // SAFETY: the row is on the stack and as long as stated. If the kernel's buffer is full it calls again later.
    unsafe { bpf_seq_write(seq, (&raw const row).cast(), size_of::<Alarm>() as u32) };
}
