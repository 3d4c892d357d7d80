//! What a drill's programs share: the scene, the servers that jobs talk to, and what tells jobs where those are.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::sockopt::ReusePort;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket,
};
use nix::unistd::User;

use super::{Instance, Job, env, slow};
use crate::process::comes_true;
use crate::scene::Scene;

/// A server that is slower than this to come up will not come up.
const STARTUP: Duration = Duration::from_secs(20);

/// The servers and files of one run of a drill. Dropping it ends all of them.
pub struct Stage {
    /// Its folder, its token, and whoever carries the token.
    pub scene: Scene,
    http: u16,
    redis: OnceLock<u16>,
    postgres: OnceLock<u16>,
    submitter: Mutex<Option<ChildStdin>>,
    listeners: Mutex<Vec<(Instance, TcpListener)>>,
    reserved: Mutex<Vec<(Instance, OwnedFd)>>,
    servers: Mutex<Vec<Child>>,
}

impl Stage {
    /// An empty stage with a slow HTTP server.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn new() -> Result<Self> {
        let scene = Scene::new();
        fs::write(scene.path("jobs"), "")?;
        // The program that children of jobs run: its path carries the token.
        fs::copy(env::program("sleep", "coreutils")?, scene.path("sleep"))?;
        Ok(Self {
            scene,
            http: slow::serve(),
            redis: OnceLock::new(),
            postgres: OnceLock::new(),
            submitter: Mutex::default(),
            listeners: Mutex::default(),
            reserved: Mutex::default(),
            servers: Mutex::default(),
        })
    }

    /// What marks this run's processes; made of letters and digits.
    pub fn token(&self) -> &str {
        self.scene.token()
    }

    /// The run's folder. Its name contains the token.
    pub fn folder(&self) -> PathBuf {
        self.scene.path("")
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.scene.path("jobs")
    }

    /// Port of the Redis that [`Stage::start_redis`] started.
    #[track_caller]
    pub fn redis(&self) -> u16 {
        *self.redis.get().unwrap()
    }

    /// Port of the PostgreSQL that [`Stage::start_postgres`] started.
    #[track_caller]
    pub fn postgres(&self) -> u16 {
        *self.postgres.get().unwrap()
    }

    /// What masters and jobs have in their environment: `DRILL_TOKEN`, `DRILL_LEDGER`, `DRILL_HTTP` (port),
    /// `DRILL_CHILD` (a program that sleeps for so many seconds), `DRILL_REDIS` and `DRILL_DB` (ports, once started).
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("DRILL_TOKEN", self.token().to_owned()),
            ("DRILL_LEDGER", env::text(self.ledger())),
            ("DRILL_HTTP", self.http.to_string()),
            ("DRILL_CHILD", env::text(self.scene.path("sleep"))),
        ];
        all.extend(self.redis.get().map(|port| ("DRILL_REDIS", port.to_string())));
        all.extend(self.postgres.get().map(|port| ("DRILL_DB", port.to_string())));
        all
    }

    /// A command of this stage: in its folder, with its variables, in a process group of its own, its output in
    /// `NAME.log`.
    pub fn dress(&self, mut command: Command, name: &str) -> Command {
        let log = self.scene.path(&format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        command
            .current_dir(self.folder())
            .envs(self.variables())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// What a program of this stage has written.
    pub fn output(&self, name: &str) -> String {
        fs::read_to_string(self.scene.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts a Redis without files.
    ///
    /// # Errors
    /// When it cannot be had or does not start.
    pub fn start_redis(&self) -> Result<()> {
        let program = env::program("redis-server", "redis-server")?;
        let port = free_port()?;
        let title = format!("redis-server {} {{listen-addr}}", self.token());
        let mut redis = Command::new(program);
        redis
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
            .args(["--proc-title-template", &title]);
        self.serve(redis, "redis", port)?;
        self.redis.set(port).ok().context("Redis was started twice")
    }

    /// Starts a PostgreSQL with a database that nobody keeps. It refuses to be root: it is run by the user `postgres`.
    ///
    /// # Errors
    /// When it cannot be had or does not start.
    pub fn start_postgres(&self) -> Result<()> {
        let initdb = env::program("initdb", "postgresql")?;
        let user = User::from_name("postgres")?.context("there is no user postgres")?;
        let data = self.scene.path("postgres");
        let run = |program: &Path| {
            let mut command = Command::new(program);
            command.arg("-D").arg(&data).uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
            command
        };
        env::step("initdb", run(&initdb).args(["--no-sync", "--auth=trust", "--username=postgres"]))?;
        let port = free_port()?;
        let mut postgres = run(&initdb.with_file_name("postgres"));
        postgres
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-F"])
            .args(["-c", &format!("cluster_name={}", self.token())]);
        self.serve(postgres, "postgres", port)?;
        self.postgres.set(port).ok().context("PostgreSQL was started twice")
    }

    /// Starts any other server of the stage and waits until its port can be connected to.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, command: Command, name: &str, port: u16) -> Result<()> {
        let folder = command.get_current_dir().map(Path::to_path_buf);
        let mut command = self.dress(command, name);
        command.current_dir(folder.unwrap_or_else(|| self.folder()));
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let ready = comes_true(STARTUP, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() || !matches!(child.try_wait(), Ok(None))
        });
        let alive = matches!(child.try_wait(), Ok(None));
        self.servers.lock().unwrap().push(child);
        if !ready || !alive {
            bail!("{name} does not start:\n{}", self.output(name));
        }
        Ok(())
    }

    /// Starts a program that hands jobs in: it reads a line `JOB KIND MS` for each from its stdin.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_submitter(&self, command: Command) -> Result<()> {
        let mut child = self.dress(command, "submitter").stdin(Stdio::piped()).spawn()?;
        *self.submitter.lock().unwrap() = child.stdin.take();
        self.servers.lock().unwrap().push(child);
        Ok(())
    }

    /// Tells that program of a job.
    ///
    /// # Errors
    /// When it has died.
    pub fn hand_in(&self, job: Job) -> Result<()> {
        let mut submitter = self.submitter.lock().unwrap();
        let submitter = submitter.as_mut().context("there is no submitter")?;
        writeln!(submitter, "{} {} {}", job.id, job.kind, job.ms).context(self.output("submitter"))
    }

    /// A socket that listens for a master: held by the drill, as a service manager holds it, so that no request is refused
    /// while there is no master. Gives its port; the same one when asked again.
    pub fn listen(&self, which: Instance) -> u16 {
        let mut listeners = self.listeners.lock().unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        if let Some((_, listener)) = listeners.iter().find(|(whose, _)| *whose == which) {
            return port(listener);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = port(&listener);
        listeners.push((which, listener));
        found
    }

    /// A port that masters bind to for themselves with `SO_REUSEPORT`; nobody else gets it while the stage lasts. The same
    /// one when asked again.
    pub fn reserve(&self, which: Instance) -> u16 {
        let mut reserved = self.reserved.lock().unwrap();
        let port = |socket: &OwnedFd| getsockname::<SockaddrIn>(socket.as_raw_fd()).unwrap().port();
        if let Some((_, socket)) = reserved.iter().find(|(whose, _)| *whose == which) {
            return port(socket);
        }
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, ReusePort, &true).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let found = port(&socket);
        reserved.push((which, socket));
        found
    }

    /// Hands the listening socket to a command as descriptor 3.
    pub fn pass_listener(&self, command: &mut Command, which: Instance) {
        self.listen(which);
        let listeners = self.listeners.lock().unwrap();
        let listener = &listeners.iter().find(|(whose, _)| *whose == which).unwrap().1;
        let fd = listener.as_raw_fd();
        let pass = move || {
            // SAFETY: system calls on descriptors only; the listener lives as long as the stage, and so does its number.
            // A descriptor that is 3 already would keep its close-on-exec flag in dup2.
            let done = unsafe { if fd == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(fd, 3) } };
            if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: `pass` is async-signal-safe: it makes one system call and allocates nothing.
        unsafe { command.pre_exec(pass) };
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for mut server in self.servers.lock().unwrap().drain(..) {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A port that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
