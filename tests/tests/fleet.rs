//! The event logs of several hosts in one table: what `docs/fleet.md` and `packaging/rsyslog` say, done with both.
//!
//! Two agents stand for two hosts. rsyslog and PostgreSQL are Debian's; they listen on 127.0.0.1 and end with the test.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use reaper_tests::agent::Agent;
use reaper_tests::config::Config;
use reaper_tests::drill::{Stage, env};
use reaper_tests::process::wait_until;
use reaper_tests::script::{Op, worker};

/// A file of the repository.
fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

/// The statements in a document, in its order.
fn statements(document: &str) -> Vec<String> {
    let blocks = document.split("```sql\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// A database of the fleet.
struct Store {
    port: u16,
    psql: std::path::PathBuf,
}

impl Store {
    fn ask(&self, database: &str, sql: &str) -> String {
        let output = Command::new(&self.psql)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-d", database])
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "-c", sql])
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// rsyslog on one host; it ends with the test.
struct Shipper(Child);

impl Drop for Shipper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Shipper {
    fn start(stage: &Stage, host: &str, log: &Path, port: u16) -> Self {
        let program = env::program("rsyslogd", "rsyslog").unwrap();
        if !Path::new("/usr/lib")
            .join(format!("{}-linux-gnu/rsyslog/ompgsql.so", std::env::consts::ARCH))
            .exists()
        {
            env::apt(&["rsyslog-pgsql"]).unwrap();
        }
        let work = stage.scene.path(host);
        fs::create_dir(&work).unwrap();
        let ours = file("packaging/rsyslog/reaper.conf")
            .replace("db.example.org", "127.0.0.1")
            .replace("port=\"5432\"", &format!("port=\"{port}\""))
            .replace("user=\"reaper\"", "user=\"postgres\"")
            .replace("/var/log/reaper/events.jsonl", log.to_str().unwrap());
        let global = format!(
            "global(maxMessageSize=\"256k\" workDirectory=\"{}\" localHostname=\"{host}\")\n",
            work.display()
        );
        let config = work.join("rsyslog.conf");
        fs::write(&config, global + &ours).unwrap();
        let mut command = Command::new(program);
        command.arg("-n").arg("-f").arg(&config).arg("-i").arg(work.join("pid"));
        Self(stage.dress(command, host).spawn().unwrap())
    }
}

#[test]
fn a_query_tells_what_was_reaped_on_which_host() {
    let stage = Stage::new().unwrap();
    stage.start_postgres().unwrap();
    let store = Store { port: stage.postgres(), psql: env::program("psql", "postgresql-client").unwrap() };
    store.ask("postgres", "create database fleet");
    let document = file("docs/fleet.md");
    let statements = statements(&document);
    let [create, reaped, spared] = statements.as_slice() else { unreachable!("{statements:?}") };
    store.ask("fleet", create);

    let mut expected = Vec::new();
    let mut shippers = Vec::new();
    for host in ["node-a", "node-b"] {
        let watched = format!(
            "[[group]]\nname = \"watched\"\nmaster.cmdline = '\\bwatched {0}$'\nidle.proof = \"asleep\"\nidle.quiet = \"100ms\"\n",
            stage.scene.token()
        );
        let config = Config::new(&stage.scene).named(host).more(&watched);
        // What was there before the shipper is sent, too.
        let agent = Agent::start(&stage.scene, &config);
        let master = stage.scene.spawn("master", [worker(host), Op::Forever]);
        let orphan = stage.scene.proc(host);
        agent.knows_master(&master);
        master.kill();
        agent.wait_reaped(&orphan);
        let left_alone = format!("{host}-watched");
        let master = stage.scene.spawn("watched", [worker(&left_alone), Op::Forever]);
        let left_alone = stage.scene.proc(&left_alone);
        agent.wait("master_found", &master);
        master.kill();
        agent.wait("spared", &left_alone);
        left_alone.kill();
        shippers.push(Shipper::start(&stage, host, &config.log, store.port));
        expected.push(format!("{host}|g|{}|TERM|", orphan.pid()));
        agent.stop();
    }

    let all = || {
        let said = store.ask("fleet", reaped);
        expected.iter().all(|row| said.lines().any(|line| line.starts_with(row)))
    };
    wait_until("every host's records", all);
    assert_eq!(store.ask("fleet", reaped).lines().count(), expected.len());
    let told = || {
        let said = store.ask("fleet", spared);
        let mut rows: Vec<_> = said.lines().map(str::to_owned).collect();
        rows.sort();
        rows == ["node-a|watched|observe|1", "node-b|watched|observe|1"]
    };
    wait_until("whom the agents left alone", told);
}
