//! `sock_send_length` and `sock_recv_length`: a process has sent or received something on a socket.
//!
//! Both fire in net/socket.c, where every system call comes by that moves data of a socket: read, write, send, recv, their
//! vector and message forms, io_uring's, and sendfile and splice *into* a socket (since 6.5). They do not fire for splice *out
//! of* a socket and for what is received through a mapping.
//!
//! Each CPU counts for itself and the agent adds up: threads of a process may use one socket at the same time, and a count
//! with the time and length of the last one cannot be changed in one atomic step. The two programs write different halves of
//! a value, so that they may even interrupt each other.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::PerCpuHashMap;
use aya_ebpf::programs::BtfTracePointContext;
use reaper_common::observed::{
    SOCKETS_MAX, SOCKETS_OF_ONE_MAX, SocketKey, SocketTraffic, Transfers, Watched,
};

use crate::kernel::{Task, socket_inode};
use crate::watched;

/// What was sent and received. Entries are made as they are needed: with many CPUs all of them would be megabytes.
#[map]
static TRAFFIC: PerCpuHashMap<SocketKey, SocketTraffic> =
    PerCpuHashMap::with_max_entries(SOCKETS_MAX, BPF_F_NO_PREALLOC);

/// `MSG_PEEK` and `MSG_ERRQUEUE`, include/linux/socket.h: what was read is still there, or is not what a peer sent.
pub(crate) const NOT_RECEIVED: i32 = 0x2 | 0x2000;

/// Arguments: sk, ret, flags (include/trace/events/sock.h).
#[btf_tracepoint(function = "sock_send_length")]
fn observe_send(ctx: BtfTracePointContext) -> u32 {
    count(ctx.arg(0), ctx.arg(1), true);
    0
}

/// Arguments: sk, ret, flags.
#[btf_tracepoint(function = "sock_recv_length")]
fn observe_receive(ctx: BtfTracePointContext) -> u32 {
    if ctx.arg::<i32>(2) & NOT_RECEIVED == 0 {
        count(ctx.arg(0), ctx.arg(1), false);
    }
    0
}

/// Counts what the call returned, if it moved something: an error moves nothing, nor does the end of the stream.
#[inline(always)]
fn count(sock: *const u8, returned: i32, sent: bool) {
    if returned <= 0 {
        return;
    }
    let Some(watched) = watched::find((bpf_get_current_pid_tgid() >> 32) as u32) else {
        return;
    };
    let Some(task) = Task::current() else {
        return;
    };
    if !watched::is(watched, task.process()) {
        return;
    }
    // A socket without an inode is the kernel's own, not one of the process's descriptors.
    let inode = socket_inode(sock);
    if inode != 0 {
        // SAFETY: the pointer is a map's value.
        let key = SocketKey { inode, watch: unsafe { (*watched).watch } };
        add(watched, key, u64::from(returned.cast_unsigned()), sent);
    }
}

/// Adds to this CPU's value, or makes one.
#[inline(always)]
pub(crate) fn add(watched: *mut Watched, key: SocketKey, bytes: u64, sent: bool) {
    // SAFETY: no precondition.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if update(&key, bytes, now, sent) {
        return;
    }
    // SAFETY: the pointer is a map's value.
    if unsafe { (*watched).sockets } < SOCKETS_OF_ONE_MAX {
        let first = Transfers { count: 1, bytes, last_ns: now, last_bytes: bytes };
        let none = Transfers { count: 0, bytes: 0, last_ns: 0, last_bytes: 0 };
        let (sent_so_far, received) = if sent { (first, none) } else { (none, first) };
        let value = SocketTraffic { sent: sent_so_far, received };
        if TRAFFIC.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
            // SAFETY: the pointer is a map's value. If two CPUs do this at once one step is lost: then the process may have
            // a socket more.
            unsafe { (*watched).sockets += 1 };
            return;
        }
        // Another CPU may have made it meanwhile.
        if update(&key, bytes, now, sent) {
            return;
        }
    }
    uncounted(watched);
}

/// Something was sent or received that is in no count.
#[inline(always)]
pub(crate) fn uncounted(watched: *mut Watched) {
    // SAFETY: the pointer is a map's value; whoever writes writes the same.
    unsafe { (&raw mut (*watched).dropped).write_volatile(1) };
}

/// Adds to this CPU's value. False if the socket has none.
#[inline(always)]
fn update(key: &SocketKey, bytes: u64, now: u64, sent: bool) -> bool {
    let Some(value) = TRAFFIC.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: the value is this CPU's, its half this program's, and a program is not interrupted by itself.
    unsafe {
        let half = if sent { &raw mut (*value).sent } else { &raw mut (*value).received };
        (*half).count += 1;
        (*half).bytes += bytes;
        (*half).last_ns = now;
        (*half).last_bytes = bytes;
    }
    true
}
