//! Programs on a pseudo-terminal: what they draw there, and the keys that they get.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::process::{PATIENCE, Proc, Signal};
use crate::scene::Scene;

/// A program that is drawing has done so when nothing comes for so long.
const SETTLED: Duration = Duration::from_millis(500);

/// What looks at the keyboard now and then ends within this: also on a machine that does much else.
const END: Duration = Duration::from_secs(60);

/// A program whose stdin and stdout are a terminal of their own. Dropping it kills the program.
pub struct Session {
    child: Child,
    held: Proc,
    keyboard: File,
    chunks: Receiver<Vec<u8>>,
    written: Vec<u8>,
    screen: vt100::Parser,
    stderr: Option<PathBuf>,
}

/// What a program has left on its terminal.
#[derive(Debug)]
pub struct Shown {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote, with the line ends that it meant.
    pub written: String,
    /// What it wrote to stderr, if that is not the terminal.
    pub stderr: String,
}

impl Session {
    /// Starts it on a terminal of 24 rows and so many columns, which can show colours unless the command has a `TERM` of its own.
    #[track_caller]
    pub fn start(scene: &Scene, command: Command, columns: u16) -> Self {
        Self::launch(command, columns, Some(scene.path("terminal.stderr")))
    }

    /// The same with its stderr on the terminal, too.
    #[track_caller]
    pub fn start_with_stderr(command: Command, columns: u16) -> Self {
        Self::launch(command, columns, None)
    }

    fn launch(mut command: Command, columns: u16, stderr: Option<PathBuf>) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = |of: &OwnedFd| Stdio::from(of.try_clone().unwrap());
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        let child = command
            .env_remove("COLUMNS")
            .stdin(end(&pty.slave))
            .stdout(end(&pty.slave))
            .stderr(
                stderr.as_ref().map_or_else(|| end(&pty.slave), |file| File::create(file).unwrap().into()),
            )
            .spawn()
            .unwrap();
        // As long as this process has the other end open, there is no end of what comes from it.
        drop((command, pty.slave));
        let held = Proc::of_child(&child).unwrap();
        let (sender, chunks) = channel();
        let keyboard = File::from(pty.master);
        let mut reading = keyboard.try_clone().unwrap();
        // Until the last one that has the terminal open is gone: then reading fails with EIO.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reading.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let screen = vt100::Parser::new(24, columns, 0);
        Self { child, held, keyboard, chunks, written: Vec::new(), screen, stderr }
    }

    /// Waits until the screen shows this, and nothing more comes for now.
    #[track_caller]
    pub fn settles(&mut self, what: &str, fits: impl Fn(&vt100::Screen) -> bool) {
        let begin = Instant::now();
        while self.take(SETTLED) || !fits(self.screen.screen()) {
            let screen = self.screen.screen().contents();
            assert!(begin.elapsed() < END, "does not show {what}, but:\n{screen}");
        }
    }

    /// What the screen shows.
    pub fn screen(&self) -> &vt100::Screen {
        self.screen.screen()
    }

    /// The program.
    pub fn process(&self) -> &Proc {
        &self.held
    }

    /// Types something.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Shown {
        let begin = Instant::now();
        while begin.elapsed() < END && !self.held.wait_gone(Duration::ZERO) {
            self.take(Duration::from_millis(20));
        }
        while self.take(SETTLED) {}
        let written = String::from_utf8_lossy(&self.written).replace("\r\n", "\n");
        let stderr = self.stderr.as_ref().map_or_else(String::new, |file| fs::read_to_string(file).unwrap());
        assert!(self.held.wait_gone(PATIENCE), "does not end: {written}\n{stderr}");
        Shown { status: self.child.wait().unwrap(), written, stderr }
    }

    /// Takes what comes within this time; whether anything did.
    fn take(&mut self, patience: Duration) -> bool {
        match self.chunks.recv_timeout(patience) {
            Ok(bytes) => {
                self.screen.process(&bytes);
                self.written.extend(bytes);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                // Nobody has it open any more: there is nothing to wait in but the clock.
                thread::sleep(patience.min(Duration::from_millis(20)));
                false
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.held.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a program on a terminal to its end.
#[track_caller]
pub fn on_terminal(scene: &Scene, command: Command, columns: u16) -> Shown {
    Session::start(scene, command, columns).end()
}
