//! The benchmarks themselves, in their short form: every figure is there, in the table and in the file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::run_to_end;
use reaper_tests::scene::Scene;
use serde_json::Value;

/// On a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs one and returns what it wrote.
fn short(name: &str) -> Value {
    let scene = Scene::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args([name, "--short", "--out"]).arg(scene.path("out"));
    let outcome = run_to_end(&scene, &mut command, PATIENCE);
    assert!(outcome.status.success(), "{outcome:#?}");
    assert!(outcome.stdout.contains(&format!("{name}: Linux ")), "{outcome:#?}");
    let text = fs::read_to_string(scene.path("out").join(format!("{name}.json"))).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["name"], name);
    assert!(report["conditions"]["cpus"].as_u64() > Some(0), "{report}");
    report
}

/// The medians of a row of the first table.
fn row(report: &Value, name: &str) -> Vec<f64> {
    let rows = report["tables"][0]["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"));
    row["cells"].as_array().unwrap().iter().filter_map(|cell| cell["median"].as_f64()).collect()
}

#[test]
fn the_core_is_measured() {
    let report = short("tree");
    for size in ["1000", "10000"] {
        let figures = row(&report, size);
        assert_eq!(figures.len(), 5, "{report}");
        assert!(figures.iter().all(|figure| *figure > 0.0), "{report}");
    }
}

#[test]
fn the_kernel_programs_are_measured() {
    let report = short("hooks");
    // No exec: fork, exit, both, and their part of the time.
    assert_eq!(row(&report, "fork and exit").len(), 4, "{report}");
    let spawn = row(&report, "posix_spawn of a dynamic program");
    assert_eq!(spawn.len(), 5, "{report}");
    assert!(spawn.iter().all(|figure| *figure > 0.0), "{report}");
}

#[test]
fn an_unknown_benchmark_is_an_error() {
    let scene = Scene::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    let outcome = run_to_end(&scene, command.arg("everything"), PATIENCE);
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("there is no benchmark \"everything\""), "{outcome:#?}");
}
