//! `cargo xtask bench core`: micro-benchmarks of the pure core, and instructions counted by valgrind's callgrind.
//!
//! A count is the difference between two runs of different length, so starting and setting up are not in it. It hardly depends
//! on the machine's mood, so it is compared with what the repository has written down: more than [`TOLERANCE`] above that is a
//! failure. `--save` writes it down anew, which belongs into the commit that changes it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::{setup, sh};

const BASELINE: &str = "tests/benches/core/baseline.txt";
const HEAD: &str =
    "# Instructions an operation (callgrind, x86-64); `cargo xtask bench core --save` writes this file.\n";

/// As much more than the baseline is no regression: compilers differ.
const TOLERANCE: f64 = 1.05;

/// Operations of the two runs.
const OPERATIONS: [u32; 2] = [1_000, 3_000];

/// Micro-benchmarks of the core, and instructions, compared with the repository's baseline.
#[derive(Parser)]
#[command(name = "core")]
pub(super) struct Args {
    /// Write the baseline anew.
    #[arg(long)]
    save: bool,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

/// Shows times and allocations, then counts instructions.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let file = sh::root().join(BASELINE);
    // Said before minutes of counting, not after.
    ensure!(args.save || file.exists(), "there is no {BASELINE}: `cargo xtask bench core --save` writes it");
    sh::run(cargo_bench().args(["--", "--sample-count", "100"]))?;
    if sh::on_path("valgrind").is_none() {
        setup::apt_install(&["valgrind".to_owned()]).context("instructions are counted by valgrind")?;
    }
    let program = program()?;
    let names =
        sh::ask(&program.display().to_string(), ["--names"]).context("the benchmark does not start")?;
    let mut counts = BTreeMap::new();
    for name in names.lines() {
        let [few, many] = OPERATIONS.map(|operations| instructions(&program, name, operations));
        let each = (many? - few?) as f64 / f64::from(OPERATIONS[1] - OPERATIONS[0]);
        counts.insert(name.to_owned(), each);
    }
    if args.save {
        let lines = counts.iter().map(|(name, each)| format!("{name} {each:.0}\n"));
        fs::write(&file, HEAD.to_owned() + &lines.collect::<String>())
            .with_context(|| format!("cannot write {BASELINE}"))?;
    }
    let baseline = fs::read_to_string(&file).with_context(|| format!("cannot read {BASELINE}"))?;
    let Compared { table, json, bad } = compare(&counts, &read_baseline(&baseline)?);
    println!("{}", if args.json { &json } else { &table });
    let folder = sh::target().join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("core.json"), json)?;
    bad.iter().for_each(|why| eprintln!("bench: {why}"));
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo_bench() -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["bench", "--package", "reaper-tests", "--bench", "core"]);
    cargo
}

/// Where cargo has put the benchmark.
fn program() -> Result<PathBuf> {
    let output = cargo_bench().args(["--no-run", "--message-format", "json"]).output()?;
    let messages = cargo_metadata::Message::parse_stream(&output.stdout[..]);
    let mut found = messages.filter_map(|message| match message.ok()? {
        cargo_metadata::Message::CompilerArtifact(artifact) if artifact.target.name == "core" => {
            artifact.executable
        }
        _ => None,
    });
    found.next().map(PathBuf::from).context("cargo has not built the benchmark")
}

/// Instructions of one run.
fn instructions(program: &Path, name: &str, operations: u32) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--count", name, &operations.to_string()])
        .output()
        .context("cannot start valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind ended with {} at {name}: {text}", output.status);
    collected(&text).with_context(|| format!("valgrind does not tell a count: {text}"))
}

/// What callgrind says last: `==123== Collected : 4567`.
fn collected(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn read_baseline(text: &str) -> Result<BTreeMap<String, f64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, each) = line.split_once(' ')?;
        Some((name.to_owned(), each.parse().ok()?))
    };
    lines.map(|line| pair(line).with_context(|| format!("{BASELINE} has the line {line:?}"))).collect()
}

/// Counts beside the baseline.
struct Compared {
    /// In Markdown.
    table: String,
    json: String,
    /// What costs more than it may, and what cannot be compared: a name on one side only.
    bad: Vec<String>,
}

fn compare(counts: &BTreeMap<String, f64>, baseline: &BTreeMap<String, f64>) -> Compared {
    let mut table =
        "\n| operation | instructions | baseline | ratio |\n| --- | --- | --- | --- |\n".to_owned();
    let mut rows = Vec::new();
    let gone = baseline.keys().filter(|name| !counts.contains_key(*name));
    let mut bad: Vec<_> = gone.map(|name| format!("{name} is in the baseline and is not counted")).collect();
    for (name, each) in counts {
        let (shown, ratio) = match baseline.get(name) {
            None => ("–".to_owned(), None),
            Some(before) => (format!("{before:.0}"), Some(each / before)),
        };
        let text = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.3}"));
        let _ = writeln!(table, "| {name} | {each:.0} | {shown} | {text} |");
        let json = ratio.map_or("null".to_owned(), |ratio| format!("{ratio:.4}"));
        rows.push(format!("  {{\"name\": \"{name}\", \"instructions\": {each:.1}, \"ratio\": {json}}}"));
        match ratio {
            None => bad.push(format!("{name} has no baseline: `cargo xtask bench core --save`")),
            Some(ratio) if ratio > TOLERANCE => {
                bad.push(format!("{name} takes more than {TOLERANCE} times its baseline"));
            }
            Some(_) => {}
        }
    }
    Compared { table, json: format!("[\n{}\n]\n", rows.join(",\n")), bad }
}

#[cfg(test)]
mod tests {
    use super::{Compared, collected, compare, read_baseline};

    #[test]
    fn the_count_is_read() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n==7== I   refs:      123,456\n";
        assert_eq!(collected(text), Some(123_456));
        assert_eq!(collected("==7== nothing"), None);
    }

    #[test]
    fn what_costs_more_than_it_may_or_cannot_be_compared_is_bad() {
        let baseline = read_baseline("# About\na 100\nb 100\ngone 1\n").unwrap();
        let counts =
            [("a", 104.0), ("b", 106.0), ("new", 1.0)].map(|(name, each)| (name.to_owned(), each)).into();
        let Compared { table, json, bad } = compare(&counts, &baseline);
        let says = |at: usize, words: &str| bad[at].starts_with(words);
        assert!(says(0, "gone is in") && says(1, "b takes more") && says(2, "new has no"), "{bad:#?}");
        assert_eq!(bad.len(), 3, "{bad:#?}");
        assert!(table.contains("| a | 104 | 100 | 1.040 |"), "{table}");
        assert!(json.contains("\"name\": \"new\", \"instructions\": 1.0, \"ratio\": null"), "{json}");
        assert!(read_baseline("nonsense\n").is_err());
    }
}
