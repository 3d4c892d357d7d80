//! `signal_generate`: somebody asks a process to stop. A worker that has been asked already is left to finish: to several
//! frameworks a second TERM is sudden death.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use reaper_common::{STOP_SIGNALS, StopSignal, kind};

use crate::kernel::Task;
use crate::ring;

/// `TRACE_SIGNAL_DELIVERED`, `TRACE_SIGNAL_ALREADY_PENDING` and `TRACE_SIGNAL_LOSE_INFO`, include/trace/events/signal.h: the process
/// has it (in the last case without what belongs to it, kernel/signal.c `__send_signal_locked`). In every other case it does not: it
/// ignores the signal, or the queue is full.
const HAS_IT: [i32; 3] = [0, 2, 4];

/// Arguments: signal, siginfo, task, group, result.
#[btf_tracepoint(function = "signal_generate")]
fn process_signal(ctx: BtfTracePointContext) -> u32 {
    let signal: i32 = ctx.arg(0);
    // The shift is bounded for the verifier; no signal is above 64.
    if STOP_SIGNALS & (1 << (signal & 63)) == 0 {
        return 0;
    }
    let result: i32 = ctx.arg(4);
    if result != HAS_IT[0] && result != HAS_IT[1] && result != HAS_IT[2] {
        return 0;
    }
    if let Some(target) = Task::new(ctx.arg(2)) {
        asked(target, signal);
    }
    0
}

/// Writes the record.
#[inline(always)]
fn asked(target: Task, signal: i32) {
    let header = ring::header(kind::SIGNAL);
    let record = StopSignal {
        header,
        target: target.process(),
        signal: signal.cast_unsigned(),
        sender: (bpf_get_current_pid_tgid() >> 32) as u32,
    };
    ring::write(record, header.boot_ns, false);
}
