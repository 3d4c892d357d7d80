//! Drills in their short form: real frameworks, a few kills each. The long form, with the table, is
//! `cargo xtask drill --all`.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::sync::Arc;

use reaper_tests::drill::{self, Framework, Plan, Rule};

/// Runs a drill with this many kills; every promise must hold.
fn keeps_its_promises(name: &str, kills: usize) {
    let all = drill::all().into_iter();
    let framework: Arc<dyn Framework> =
        Arc::from(all.into_iter().find(|drill| drill.name() == name).unwrap());
    let plan = Plan { kills, rule: Rule::Reaper, seed: 7, asleep: false };
    let facts = drill::run(&framework, plan).unwrap();
    let broken = facts.broken();
    assert!(broken.is_empty(), "{broken:#?}\n{:#?}", facts.wrongs);
}

#[test]
fn rq_below_supervisord() {
    keeps_its_promises("rq", 3);
}

#[test]
fn gunicorn_with_workers_that_serve_on() {
    keeps_its_promises("gunicorn-uvicorn", 3);
}

#[test]
fn uwsgi_without_a_master() {
    keeps_its_promises("uwsgi", 3);
}

#[test]
fn a_job_that_comes_with_the_signal() {
    let race = drill::race(100, true, 7).unwrap();
    assert_eq!(race.lost, 0, "{:#?}", race.wrongs);
    assert_eq!(race.verified, race.signals, "every worker was held still for the last look");
    assert!(race.ended > 0 && race.late > 0, "the race was no race: {race:?}");
}
