//! Drills with the real PHP programs in their short form, and what is said of their workers in the middle of a job.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::sync::Arc;

use reaper_tests::drill::{self, Framework, Job, Kind, Plan, Rule};

fn find(name: &str) -> Arc<dyn Framework> {
    Arc::from(drill::all().into_iter().find(|drill| drill.name() == name).unwrap())
}

/// Runs a drill with a few kills; it must do no harm. How long it takes is measured by the long form.
fn keeps_its_promises(name: &str) {
    let plan = Plan { kills: 3, rule: Rule::Reaper, seed: 7, asleep: false };
    let facts = drill::run(&find(name), plan).unwrap();
    let harm = facts.harm();
    assert!(harm.is_empty(), "{harm:#?}\n{:#?}", facts.wrongs);
}

/// Each job is the worker's last: it is seen to work for the reason told, and goes as idle once it is done.
fn is_told_why(name: &str, cases: &[(Job, &str)]) {
    let jobs: Vec<_> = cases.iter().map(|(job, _)| *job).collect();
    let all = drill::verdicts(&find(name), &jobs).unwrap();
    for (said, (job, why)) in all.iter().zip(cases) {
        let told = said.during.iter().any(|(verdict, because)| verdict != "idle" && because.contains(why));
        assert!(told, "{job:?}: {said:#?}");
        assert!(said.during.iter().all(|(verdict, _)| verdict != "idle"), "{said:#?}");
        assert!(said.signalled.is_some() && said.after, "{said:#?}");
    }
}

fn job(id: u64, kind: Kind, ms: u64) -> Job {
    Job { id, kind, ms }
}

#[test]
fn laravel_below_supervisord() {
    keeps_its_promises("laravel-supervisord");
}

#[test]
fn laravel_that_blocks_for_ever() {
    keeps_its_promises("laravel-block-0");
}

#[test]
fn php_fpm_with_requests_in_flight() {
    keeps_its_promises("php-fpm");
}

#[test]
fn laravel_jobs_that_wait() {
    is_told_why(
        "laravel-poll",
        &[
            // The numbers decide in which of Laravel's own ways it waits (jobs.php).
            (job(5, Kind::Sleep, 2_500), "sleeps for 12 s, and between polls it would be 1 s"),
            (job(6, Kind::Sleep, 0), "sleeps for 1 s as between polls, but a job may, too"),
            (job(7, Kind::Sleep, 0), "sleeps for 1 s as between polls, but a job may, too"),
            (job(8, Kind::Child, 2_000), "it has a live child"),
            (job(9, Kind::Http, 2_000), "which is not its source of work"),
            (job(11, Kind::Lock, 2_000), "while an alarm limits the time of a job"),
        ],
    );
}

#[test]
fn laravel_jobs_that_wait_as_their_worker_does() {
    let alarm = "while an alarm limits the time of a job";
    is_told_why("laravel-block-5", &[(job(1, Kind::Lock, 2_000), alarm), (job(2, Kind::Lock, 2_000), alarm)]);
}

#[test]
fn requests_that_wait() {
    is_told_why(
        "php-fpm",
        &[
            (job(1, Kind::Sleep, 2_000), "sleeps for 2 s, and its group does not poll by sleeping"),
            (job(2, Kind::Child, 2_000), "it has a live child"),
        ],
    );
}
