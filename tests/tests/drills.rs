//! Drills in their short form: real frameworks, a few kills each. The long form, with the table, is
//! `cargo xtask drill --all`.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::sync::Arc;

use reaper_tests::drill::{self, Framework, Job, Kind, Plan, Rule};

fn find(name: &str) -> Arc<dyn Framework> {
    Arc::from(drill::all().into_iter().find(|drill| drill.name() == name).unwrap())
}

/// Runs a drill with this many kills; it must do no harm. How long it takes is measured by the long form.
fn keeps_its_promises(name: &str, kills: usize) {
    let plan = Plan { kills, rule: Rule::Reaper, seed: 7, asleep: false };
    let facts = drill::run(&find(name), plan).unwrap();
    let harm = facts.harm();
    assert!(harm.is_empty(), "{harm:#?}\n{:#?}", facts.wrongs);
}

#[test]
fn rq_below_supervisord() {
    keeps_its_promises("rq", 2);
}

#[test]
fn gunicorn_with_workers_that_serve_on() {
    keeps_its_promises("gunicorn-uvicorn", 2);
}

#[test]
fn uwsgi_without_a_master() {
    keeps_its_promises("uwsgi", 2);
}

#[test]
fn a_job_that_comes_with_the_signal() {
    let race = drill::race(60, true, 7).unwrap();
    assert_eq!(race.lost, 0, "{:#?}", race.wrongs);
    // On a machine that does much else a worker may not stop in time; the record says so then.
    assert!(
        race.verified * 10 >= race.signals * 9,
        "few workers were held still for the last look: {race:?}"
    );
    assert!(race.ended > 0 && race.late > 0, "the race was no race: {race:?}");
}

/// One job that waits: while it runs its worker is said to work, for the reason told, and it is stopped only after.
fn is_told_why(name: &str, kind: Kind, why: &str) {
    let job = Job { id: 1, kind, ms: 1_500 };
    let all = drill::verdicts(&find(name), &[job]).unwrap();
    for said in all {
        let told = said.during.iter().any(|(verdict, because)| verdict == "busy" && because.contains(why));
        assert!(told && said.during.iter().all(|(verdict, _)| verdict != "idle"), "{said:#?}");
        assert!(said.signalled.is_some() && said.after, "{said:#?}");
    }
}

#[test]
fn a_request_that_awaits() {
    is_told_why("gunicorn-uvicorn", Kind::Sleep, "which is not its source of work");
}

#[test]
fn a_horse_at_work() {
    is_told_why("rq", Kind::Sleep, "it has a live child");
}

/// The same for a worker that dies with its master: while it lasts.
#[test]
fn a_request_of_a_greenlet() {
    let job = Job { id: 1, kind: Kind::Sleep, ms: 5_000 };
    let all = drill::verdicts(&find("gunicorn-gevent"), &[job]).unwrap();
    for said in all {
        // It depends on the moment which of the two is seen first.
        let why = ["a client is connected", "which is not its source of work"];
        let told = said
            .during
            .iter()
            .any(|(verdict, because)| verdict == "busy" && why.iter().any(|why| because.contains(why)));
        assert!(told && said.signalled.is_none(), "{said:#?}");
    }
}

#[test]
fn a_celery_child_that_sleeps() {
    is_told_why(
        "celery-stays",
        Kind::Sleep,
        "sleeps until a point in time, which no poll of its framework does",
    );
}
