//! Micro-benchmarks of the pure core: `cargo bench -p reaper-tests --bench core`, or `cargo xtask bench core`, which also
//! counts instructions and compares them with `baseline.txt` beside this file.
//!
//! With `--count SCENARIO N` it only does so many operations, for a tool that counts from outside.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

mod scenarios;

use divan::{AllocProfiler, Bencher};

use scenarios::{NAMES, Scenario};

/// Shows what each operation allocates, too.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["--names"] => NAMES.iter().for_each(|name| println!("{name}")),
        ["--count", name, operations] => {
            let mut scenario = Scenario::new(name);
            (0..operations.parse::<u32>().unwrap()).for_each(|_| scenario.once());
        }
        _ => divan::main(),
    }
}

#[divan::bench(args = NAMES)]
fn core(bencher: Bencher, name: &str) {
    let mut scenario = Scenario::new(name);
    bencher.bench_local(|| scenario.once());
}
