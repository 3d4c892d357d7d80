//! reaper's kernel programs: they say who was born, what it executes, who died and who adopts its children, and who is
//! asked to stop.
//!
//! One file a program: [`fork`], [`exec`], [`exit`], [`signal`] and [`task_iter`]. They share [`kernel`] (typed reads of kernel
//! structs), [`reparent`] (the kernel's own rule of adoption), [`ring`] (the one way out) and [`lineage`] (what is kept for an agent
//! that does not run).
//!
//! What they keep true: a process is named by (tgid, start of its leader) and never by a thread; a record that could not
//! be written is counted; nothing here decides anything.
//!
//! The file also compiles for the host, so that `cargo clippy --workspace` sees it. What that makes does nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the attribute macros of aya-ebpf pass the context by value"
)]

mod exec;
mod exit;
mod fork;
mod kernel;
mod lineage;
mod reparent;
mod ring;
mod signal;
mod task_iter;

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
