//! What counts the traffic of orphans is loaded while there are any, and only then.

use std::collections::BTreeSet;

use super::*;

/// Ids of the observer's programs that this process has open.
fn held_by(who: &Proc) -> BTreeSet<u32> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", who.pid())).unwrap() {
        // It may have been closed meanwhile.
        let text = entry.and_then(|e| fs::read_to_string(e.path())).unwrap_or_default();
        held.extend(text.lines().find_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    loaded().intersection(&held).copied().collect()
}

/// Ids of the observer's programs in the kernel, whosever they are.
fn loaded() -> BTreeSet<u32> {
    let all = aya::programs::loaded_programs().filter_map(Result::ok);
    let observers = all.filter(|p| p.name_as_str().is_some_and(|name| name.starts_with("observe_")));
    observers.map(|p| p.id()).collect()
}

#[test]
fn nothing_is_loaded_without_an_orphan() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let agent = Agent::start(&scene, &with_queue(&scene, at));
    // Long enough for a slow machine to see it busy.
    let works = [connects("q", at), Op::Busy(5_000), note("done"), wait_in(Call::Read, &["q"])];
    let master = scene.spawn("master", [worker_doing("w", works), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    assert_eq!(held_by(agent.process()), BTreeSet::new(), "nobody is watched");
    master.kill();
    agent.wait("busy", &w);
    let held = held_by(agent.process());
    assert!(!held.is_empty(), "an orphan is watched");
    goes(&agent, &w, "its queue");
    wait_until("the observer unloaded", || {
        held_by(agent.process()).is_empty() && loaded().is_disjoint(&held)
    });
    agent.stop();
}
