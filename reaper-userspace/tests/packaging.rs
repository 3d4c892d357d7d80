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
    let document = text("../docs/install.md");
    let all: Vec<_> = document.split("--cap-add=").skip(1).collect();
    assert_eq!(all.len(), 1, "docs/install.md");
    assert_eq!(unit, all[0].split_whitespace().next().unwrap().split(',').collect(), "docs/install.md");
    let kept: BTreeSet<_> = KEPT.iter().map(|(cap, _)| cap.to_string()).collect();
    assert_eq!(unit, kept.iter().map(|cap| cap.strip_prefix("CAP_").unwrap()).collect(), "what it keeps");
}

/// What the documents in the package name by a link, or as a file of `packaging`, is in it.
#[test]
fn what_the_documents_name_is_in_the_package() {
    let manifest = fs::read_to_string(packaging("../reaper-userspace/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let sources: Vec<_> = assets.iter().map(|asset| asset[0].as_str().unwrap()).collect();
    let is_packed = |path: &str| {
        sources.iter().filter_map(|source| source.strip_prefix("../")).any(|source| {
            match source.split_once('*') {
                Some((folder, end)) => path.strip_prefix(folder).is_some_and(|rest| rest.ends_with(end)),
                None => source == path,
            }
        })
    };
    let mut files: Vec<_> =
        fs::read_dir(packaging("../docs")).unwrap().map(|file| file.unwrap().path()).collect();
    files.push(packaging("../README.md"));
    let mut count = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(file).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            let folder = if file.ends_with("README.md") { "" } else { "docs/" };
            let path = link.strip_prefix("../").map_or_else(|| format!("{folder}{link}"), str::to_owned);
            assert!(is_packed(&path), "{} names {link}", file.display());
            count += 1;
        }
    }
    assert!(count > 10, "{count} links");
    for folder in ["rsyslog", "prometheus", "grafana"] {
        for file in fs::read_dir(packaging(folder)).unwrap() {
            let path = format!("packaging/{folder}/{}", file.unwrap().file_name().display());
            assert!(is_packed(&path), "{path}");
        }
    }
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
