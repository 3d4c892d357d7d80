//! The map of lineages from one agent's programs to the next: who is cleared away.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aya::programs::loaded_programs;
use reaper::core::ids::ProcKey;
use reaper::core::input::Birth;
use reaper::kernel::{Pins, Probes};
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker};

const RING_BYTES: u32 = 1 << 20;

/// What the next agent's programs are given, and everybody alive.
fn next(pins: &Pins) -> (Probes, Vec<Birth>, Vec<ProcKey>) {
    let mut probes = Probes::load_pinned(RING_BYTES, pins).unwrap();
    probes.attach().unwrap();
    let births = probes.take_over().unwrap().map(|kept| kept.births).unwrap_or_default();
    let live = probes.tasks().unwrap().iter().map(|task| task.key).collect();
    (probes, births, live)
}

fn knows(births: &[Birth], who: &Proc) -> bool {
    births.iter().any(|birth| birth.key.tgid == who.pid().cast_unsigned())
}

/// Removes what keeps programs attached, and not what they have kept.
fn detach(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            detach(&entry.path());
        } else if entry.file_name().to_string_lossy().starts_with("process_") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// The numbers of all programs that are called as ours are.
fn programs() -> BTreeSet<u32> {
    let is_ours = |name: Option<&str>| name.is_some_and(|name| name.starts_with("process_"));
    loaded_programs().flatten().filter(|one| is_ours(one.name_as_str())).map(|one| one.id()).collect()
}

#[test]
fn who_died_unseen_is_cleared_away_unless_somebody_descends_from_them() {
    let scene = Scene::new();
    let pins = Pins::of(&scene.path("state")).unwrap();
    let others = programs();
    let (probes, births, _) = next(&pins);
    assert!(births.is_empty(), "the first one");
    let attached = &programs() - &others;
    assert!(!attached.is_empty());
    let lonely = scene.spawn("lonely", [Op::Forever]);
    let mother = scene.spawn("mother", [worker("child"), Op::Forever]);
    let child = scene.proc("child");
    drop(probes);
    detach(pins.folder());
    // 5.10 lets go of them a moment later.
    wait_until("the programs are gone", || programs().is_disjoint(&attached));
    for one in [&lonely, &mother] {
        one.kill();
        assert!(one.wait_gone(PATIENCE));
    }

    let (mut probes, births, live) = next(&pins);
    assert!([&lonely, &mother, &child].iter().all(|one| knows(&births, one)), "nobody saw them die");
    let later = scene.spawn("mother", [worker("later"), Op::Forever]);
    let heir = scene.proc("later");
    later.kill();
    assert!(later.wait_gone(PATIENCE));
    probes.clear_kept(&births, live).unwrap();
    drop(probes);

    let (probes, births, _) = next(&pins);
    assert!(!knows(&births, &lonely));
    assert!([&mother, &child].iter().all(|one| knows(&births, one)), "the one is the other's lineage");
    assert!([&later, &heir].iter().all(|one| knows(&births, one)), "born after what was read");
    drop(probes);
    pins.remove().unwrap();
}
