//! The documents for users: every command in them is run that can be run here, every configuration in them is read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::{Agent, binary, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::drill::env;
use reaper_tests::not_run;
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker};

/// What the documents call these files.
const LOG: &str = "/var/log/reaper/events.jsonl";
const CONFIG: &str = "/etc/reaper/reaper.toml";

/// What of `docs/install.md` is run elsewhere, by how it begins, and where.
const ELSEWHERE: [(&str, &str); 3] = [
    ("apt install ./reaper_", "`cargo xtask dist --test`: a machine of its own with systemd"),
    (
        "mkdir -p /run/reaper",
        "nowhere: it takes a host whose containers may be given its pids and capabilities",
    ),
    ("kubectl apply", "nowhere: `cargo xtask dist` holds what it sends against the API's schemas"),
];

/// Commands of `console` blocks that are not run here, by how they begin, and where they are.
const NOT_HERE: [(&str, &str); 5] = [
    ("cargo xtask ", "they are what runs this test"),
    ("reaper run", "it does not end: the other tests start it, with `--unpin` those of `e2e_restart`"),
    ("reaper top", "`commands`, on a terminal"),
    ("reaper tail -f", "`commands`: it does not end"),
    ("curl ", "`metrics`"),
];

/// How long a command may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "md")).collect();
    found.push(repository().join("README.md"));
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

/// A `PATH` on which these programs come first.
fn path_with(scene: &Scene, programs: &[(&str, String)]) -> String {
    let bin = scene.path("bin");
    fs::create_dir(&bin).unwrap();
    for (program, text) in programs {
        fs::write(bin.join(program), text).unwrap();
        fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

/// A `reaper` that asks this scene's agent and reads its log, unless it was told whom and which. `pidof` knows no other agent.
fn programs(config: &Config, file: &Path, agent: &Agent) -> [(&'static str, String); 2] {
    let wrapper = format!(
        "#!/bin/sh\ncase \" $* \" in *\" --config \"*|*\" {log} \"*) exec {binary} \"$@\" ;; esac\n\
         case $1 in\ntree|orphans|explain) set -- \"$@\" --config {file} ;;\ndoctor) set -- \"$@\" --socket {socket} ;;\n\
         tail) set -- \"$@\" {log} ;;\nesac\nexec {binary} \"$@\"\n",
        log = config.log.display(),
        binary = binary().display(),
        file = file.display(),
        socket = config.socket.display(),
    );
    [("reaper", wrapper), ("pidof", format!("#!/bin/sh\necho {}\n", agent.process().pid()))]
}

#[test]
fn every_command_runs() {
    let scene = Scene::new();
    let looks_on = format!(
        "[[group]]\nname = \"h\"\n[group.master]\ncmdline = 'looked-at {}$'\n[group.idle]\nproof = \"asleep\"",
        scene.token()
    );
    let config = Config::new(&scene).more(&looks_on);
    let recording = scene.path("recording.jsonl");
    let agent = Agent::start_with(&scene, &config, &["--record", recording.to_str().unwrap()]);
    // Something to tell about: one that is reaped, one that a group only looks at.
    let mut pid = 0;
    for (role, name) in [("master", "w"), ("looked-at", "v")] {
        let master = scene.spawn(role, [worker(name), Op::Forever]);
        let orphan = scene.proc(name);
        agent.knows_master(&master);
        master.kill();
        if role == "master" {
            agent.wait_reaped(&orphan);
        } else {
            agent.wait("signal", &orphan);
            pid = orphan.pid();
        }
    }

    let file = scene.path("agent.toml");
    let path = path_with(&scene, &programs(&config, &file, &agent));
    // What the README calls these files, in the folder where it is.
    fs::copy(&file, scene.path("reaper.toml")).unwrap();
    fs::write(scene.path("calmer.toml"), config.clone().quiet("2s").text()).unwrap();
    symlink(&config.log, scene.path("events.jsonl")).unwrap();

    env::program("jq", "jq").unwrap();
    let (mut count, mut elsewhere) = (0, BTreeSet::new());
    for document in documents() {
        for (line, block) in blocks(&fs::read_to_string(&document).unwrap(), "console") {
            for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
                let here = command
                    .replace(LOG, config.log.to_str().unwrap())
                    .replace(CONFIG, file.to_str().unwrap())
                    .replace("explain PID", &format!("explain {pid}"))
                    .replace("explain 3251", &format!("explain {pid}"));
                if let Some((begin, _where)) = NOT_HERE.iter().find(|(begin, _)| here.starts_with(begin)) {
                    elsewhere.insert(*begin);
                    continue;
                }
                let mut shell = Command::new("sh");
                shell.args(["-c", &here]).current_dir(scene.path("")).env("PATH", &path);
                let outcome = run_to_end(&scene, &mut shell, LONG);
                let place = format!("{}:{line}", document.display());
                assert!(outcome.status.success(), "{place}: {command}\n{outcome:#?}");
                assert_ne!(outcome.stdout + &outcome.stderr, "", "{place}: {command} says nothing");
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} commands");
    assert_eq!(elsewhere.len(), NOT_HERE.len(), "in no document: {elsewhere:?}");
    agent.stop();
}

/// A block without a language may hold commands that nobody runs.
#[test]
fn every_block_of_the_readme_says_what_it_is() {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let fences: Vec<_> = text.lines().filter(|line| line.starts_with("```")).collect();
    assert!(fences.len() > 10, "{fences:?}");
    for pair in fences.chunks(2) {
        let [begin, end] = pair else { panic!("a block has no end: {fences:?}") };
        assert!(["```console", "```toml", "```text"].contains(begin) && *end == "```", "{begin} … {end}");
    }
}

/// What the document calls an overlay is one, to a program that puts overlays together.
#[test]
fn the_overlay_for_kubernetes_is_one() {
    let text = fs::read_to_string(repository().join("docs/install.md")).unwrap();
    let blocks = blocks(&text, "yaml");
    let [(_, overlay)] = &blocks[..] else { panic!("{blocks:#?}") };
    let builders = [("kubectl", "kustomize"), ("kustomize", "build")];
    let scene = Scene::new();
    let folder = scene.path("overlay");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("kustomization.yaml"), overlay).unwrap();
    fs::write(folder.join("reaper.toml"), "# the fleet's\n").unwrap();
    // What lies outside may be no link.
    let copied =
        Command::new("cp").arg("-r").arg(repository().join("packaging")).arg(scene.path("")).status();
    assert!(copied.unwrap().success());
    for (program, word) in builders {
        let Ok(output) = Command::new(program).arg(word).arg(&folder).output() else { continue };
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("image: registry.example.org/reaper:0.1.0"), "{said}");
        assert!(said.contains("# the fleet's") && !said.contains("profile ="), "{said}");
        return;
    }
    not_run("what Kustomize makes of the overlay in docs/install.md: there is neither kubectl nor kustomize");
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
            assert!(!outcome.stdout.contains("warning:"), "{place}\n{block}\n{outcome:#?}");
            count += 1;
        }
    }
    assert!(count > 4, "{count} configurations");
}

#[test]
fn the_packaged_configurations_are_good() {
    for file in ["packaging/reaper.toml", "packaging/kubernetes/reaper.toml"] {
        let scene = Scene::new();
        let file = repository().join(file);
        let outcome = run_to_end(&scene, Command::new(binary()).arg("check").arg(&file), LONG);
        assert!(outcome.status.success(), "{outcome:#?}");
        assert!(!outcome.stdout.contains("enforces"), "as installed it observes: {outcome:#?}");
    }
}

/// The files go below a folder instead of the root, and systemctl says what it was asked.
#[test]
fn the_archive_is_installed_as_it_is_said() {
    let scene = Scene::new();
    let file = repository().join("docs/install.md");
    let mut blocks = blocks(&fs::read_to_string(file).unwrap(), "sh");
    for (begins, _where) in ELSEWHERE {
        let before = blocks.len();
        blocks.retain(|(_, block)| !block.starts_with(begins));
        assert_eq!(blocks.len() + 1, before, "{begins}");
    }
    let [(_, block)] = &blocks[..] else { panic!("neither run here nor elsewhere: {blocks:#?}") };

    let archive = scene.path("archive");
    fs::create_dir(&archive).unwrap();
    symlink(binary(), archive.join("reaper")).unwrap();
    symlink(repository().join("packaging"), archive.join("packaging")).unwrap();
    let root = scene.path("root");
    for there in ["usr/bin", "etc/systemd/system"] {
        fs::create_dir_all(root.join(there)).unwrap();
    }
    let asked = scene.path("asked");
    let path = path_with(&scene, &[("systemctl", format!("#!/bin/sh\necho \"$@\" >>{}\n", asked.display()))]);
    let here = block.replace(" /", &format!(" {}/", root.display()));
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &here]).current_dir(&archive).env("PATH", path);
    let outcome = run_to_end(&scene, &mut shell, LONG);
    assert!(outcome.status.success(), "{block}\n{outcome:#?}");

    assert_eq!(fs::read_to_string(asked).unwrap(), "daemon-reload\nenable --now reaper\n");
    let unit = fs::read_to_string(root.join("etc/systemd/system/reaper.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).unwrap();
    let (program, args) = start.split_once(' ').unwrap();
    assert_eq!(args, "run");
    let mut check = Command::new(root.join(program));
    check.arg("check").arg(root.join("etc/reaper/reaper.toml"));
    let outcome = run_to_end(&scene, &mut check, LONG);
    assert!(outcome.status.success() && !outcome.stdout.contains("warning:"), "{outcome:#?}");
}
