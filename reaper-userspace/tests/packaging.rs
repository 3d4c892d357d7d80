//! What is in `packaging`: the service, the container and the manifests want the same of a host, and their configurations
//! observe.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use reaper::config::Config;
use reaper::confine::KEPT;
use reaper::core::rules::Mode;

fn packaging(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// The words of one line, which begins and ends so.
fn words<'a>(text: &'a str, begin: &str, end: &str, between: [char; 2]) -> BTreeSet<&'a str> {
    let lines: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix(begin)).collect();
    assert_eq!(lines.len(), 1, "not one line with {begin:?}: {lines:?}");
    let line = lines[0].split(end).next().unwrap();
    line.split(between).map(|word| word.trim_matches(['"', ' '])).filter(|word| !word.is_empty()).collect()
}

#[test]
fn everybody_asks_for_the_same_capabilities() {
    let text = |file| fs::read_to_string(packaging(file)).unwrap();
    let (unit, set, recipe) =
        (text("systemd/reaper.service"), text("kubernetes/daemonset.yaml"), text("container/Containerfile"));
    let unit = words(&unit, "CapabilityBoundingSet=", "\n", [' ', ' ']);
    let unit: BTreeSet<_> = unit.into_iter().map(|cap| cap.strip_prefix("CAP_").unwrap()).collect();
    assert_eq!(unit, words(&set, "add: [", "]", [',', ' ']), "Kubernetes");
    assert_eq!(unit, words(&recipe, "#   podman run --pid=host --cap-drop=all --cap-add=", " ", [',', ' ']));
    let kept: BTreeSet<_> = KEPT.iter().map(|(cap, _)| cap.to_string()).collect();
    assert_eq!(unit, kept.iter().map(|cap| cap.strip_prefix("CAP_").unwrap()).collect(), "what it keeps");
}

#[test]
fn what_is_installed_observes() {
    for file in ["reaper.toml", "kubernetes/reaper.toml"] {
        let config = Config::load(&packaging(file)).unwrap();
        assert!(!config.rules.groups.is_empty(), "{file}");
        for group in &config.rules.groups {
            assert_eq!(group.mode, Mode::Observe, "{file}: {}", group.name);
        }
    }
}

#[test]
fn systemd_understands_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(packaging("systemd/reaper.service")).unwrap();
    // It looks whether the program is there.
    let runnable = unit.replace("ExecStart=/usr/bin/reaper run", "ExecStart=/bin/true");
    assert_ne!(unit, runnable);
    let file = dir.path().join("reaper.service");
    fs::write(&file, runnable).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
        Err(e) => eprintln!("not checked: systemd-analyze: {e}"),
        Ok(said) => {
            let told = String::from_utf8_lossy(&said.stderr);
            // What it finds fault with in the machine's other units is not about ours.
            let ours: Vec<_> = told.lines().filter(|line| line.contains("reaper.service")).collect();
            assert!(said.status.success() && ours.is_empty(), "{told}");
        }
    }
}
