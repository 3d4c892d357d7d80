//! The observer: what single processes send and receive, and whether an alarm runs for them.
//!
//! An object of its own, because it is loaded only while somebody is watched; it has none of the maps of the programs that
//! always run. [`traffic`] counts sends and receives, or [`calls`] on an older kernel, [`alarm`] dumps the timers, [`watched`] says
//! of whom.
//!
//! What it keeps true: who is not watched costs a lookup; nothing wakes the agent; what could not be counted is told, so
//! that the agent does not take it for silence.
//!
//! The file also compiles for the host, so that `cargo clippy --workspace` sees it. What that makes does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the attribute macros of aya-ebpf pass the context by value"
)]

mod alarm;
mod calls;
mod kernel;
mod traffic;
mod watched;

/// The helpers that the programs call are there for GPL-compatible programs only.
#[unsafe(no_mangle)]
#[cfg_attr(target_arch = "bpf", unsafe(link_section = "license"))]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier would refuse the loop.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
