//! The documents for users: every command in them is run, every configuration in them is read.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::{Agent, binary, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::drill::env;
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker};

/// What the documents call these files.
const LOG: &str = "/var/log/reaper/events.jsonl";
const CONFIG: &str = "/etc/reaper/reaper.toml";

/// How long a command may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn documents() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    found.sort();
    found
}

/// The blocks of a language, each with the number of its first line.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, number) in text.lines().zip(1..) {
        match &mut open {
            Some(block) if line.starts_with("```") => {
                found.push(std::mem::take(block));
                open = None;
            }
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line == format!("```{language}") => open = Some((number + 1, String::new())),
            // The end of another language's block is taken for a beginning of none.
            None => {}
        }
    }
    assert!(open.is_none(), "a block of {language} has no end");
    found
}

#[test]
fn every_command_runs() {
    let scene = Scene::new();
    let looks_on = format!(
        "[[group]]\nname = \"h\"\n[group.master]\ncmdline = 'looked-at {}$'\n[group.idle]\nproof = \"asleep\"",
        scene.token()
    );
    let config = Config::new(&scene).more(&looks_on);
    let agent = Agent::start(&scene, &config);
    // Something to tell about: one that is reaped, one that a group only looks at.
    for (role, name) in [("master", "w"), ("looked-at", "v")] {
        let master = scene.spawn(role, [worker(name), Op::Forever]);
        let orphan = scene.proc(name);
        agent.knows_master(&master);
        master.kill();
        if role == "master" {
            agent.wait_reaped(&orphan);
        } else {
            agent.wait("signal", &orphan);
        }
    }

    let file = scene.path("agent.toml");
    let bin = scene.path("bin");
    fs::create_dir(&bin).unwrap();
    // The commands that ask an agent ask this one.
    let wrapper = format!(
        "#!/bin/sh\ncase $1 in\ntree|orphans|explain) set -- \"$@\" --config {} ;;\ndoctor) set -- \"$@\" --socket {} ;;\ntail) set -- \"$@\" {} ;;\n\
         esac\nexec {} \"$@\"\n",
        file.display(),
        config.socket.display(),
        config.log.display(),
        binary().display()
    );
    fs::write(bin.join("reaper"), wrapper).unwrap();
    fs::set_permissions(bin.join("reaper"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());

    env::program("jq", "jq").unwrap();
    let mut count = 0;
    for document in documents() {
        for (line, block) in blocks(&fs::read_to_string(&document).unwrap(), "console") {
            for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
                let here = command
                    .replace(LOG, config.log.to_str().unwrap())
                    .replace(CONFIG, file.to_str().unwrap());
                let outcome =
                    run_to_end(&scene, Command::new("sh").args(["-c", &here]).env("PATH", &path), LONG);
                let place = format!("{}:{line}", document.display());
                assert!(outcome.status.success(), "{place}: {command}\n{outcome:#?}");
                assert_ne!(outcome.stdout, "", "{place}: {command} says nothing");
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count} commands");
    agent.stop();
}

#[test]
fn every_configuration_is_good() {
    let scene = Scene::new();
    let mut count = 0;
    for document in documents() {
        for (line, block) in blocks(&fs::read_to_string(&document).unwrap(), "toml") {
            let file = scene.path("documented.toml");
            fs::write(&file, &block).unwrap();
            let outcome = run_to_end(&scene, Command::new(binary()).arg("check").arg(&file), LONG);
            let place = format!("{}:{line}", document.display());
            assert!(outcome.status.success(), "{place}\n{block}\n{outcome:#?}");
            assert!(!outcome.stderr.contains("warning"), "{place}\n{block}\n{outcome:#?}");
            count += 1;
        }
    }
    assert!(count > 4, "{count} configurations");
}
