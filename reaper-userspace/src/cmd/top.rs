//! `reaper top`: a full-screen live view of the agent; with `--output json` a line for each refresh.
//!
//! The terminal is put back as it was however this ends: by a key, by an error, by a signal, by a panic. The agent is asked from a
//! thread of its own, so that keys work while it does not answer.

mod app;
mod draw;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::reach::Reach;
use crate::agent::client::{self, AskError};
use crate::agent::protocol::{Overview, Request};
use crate::core::view::Explanation;
use crate::output::{self, OutputFormat};
use app::{App, Pane, Wish};

/// How long a key may go unseen, and a signal unheard.
const GLANCE: Duration = Duration::from_millis(50);

/// More often nobody can read.
const SHORTEST: Duration = Duration::from_millis(100);

/// Arguments of `reaper top`.
#[derive(Args, Clone, Debug, Default)]
pub struct TopArgs {
    /// How often the agent is asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Interval,
    /// End after so many refreshes; only with --output json
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    #[command(flatten)]
    reach: Reach,
}

/// A second, or what was typed.
#[derive(Clone, Copy, Debug)]
pub struct Interval(Duration);

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

fn interval(text: &str) -> Result<Interval, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time < SHORTEST {
        return Err(format!("at least {} ms", SHORTEST.as_millis()));
    }
    Ok(Interval(time))
}

/// Shows the agent until somebody quits.
///
/// # Errors
/// No agent runs or it cannot be asked, or stdin or stdout is no terminal.
pub fn run(args: &TopArgs, format: OutputFormat, color: bool) -> anyhow::Result<ExitCode> {
    let path = args.reach.socket(&mut io::stderr())?;
    if format == OutputFormat::Json {
        return output::to_stdout(|out| {
            let mut left = args.count.unwrap_or(u64::MAX);
            while left > 0 {
                left -= 1;
                for line in client::ask(&path, &Request::Overview)? {
                    writeln!(out, "{line}")?;
                }
                out.flush()?;
                if left > 0 && !output::wait_while_read(args.interval.0) {
                    break;
                }
            }
            Ok(ExitCode::SUCCESS)
        });
    }
    anyhow::ensure!(args.count.is_none(), "--count is for --output json");
    anyhow::ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "top needs a terminal; elsewhere use --output json, or `reaper orphans`"
    );
    // Said before the screen is taken.
    let overview = overview(&path)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let mut app = App { color, ..App::default() };
    app.take(overview);
    // Restores the terminal in a panic, too.
    let mut terminal = ratatui::try_init()?;
    let outcome = show(&mut terminal, &mut app, &Agent::start(path), args.interval.0, &ended);
    ratatui::try_restore()?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn overview(path: &Path) -> Result<Overview, AskError> {
    let lines = client::ask(path, &Request::Overview)?;
    let line = lines.first().map(String::as_str).unwrap_or_default();
    serde_json::from_str(line).map_err(|_| AskError::CutShort(path.to_owned()))
}

fn explanation(path: &Path, pid: u32) -> Result<Option<Box<Explanation>>, String> {
    let lines = client::ask(path, &Request::Explain { pid }).map_err(|e| e.to_string())?;
    lines.first().map(|line| serde_json::from_str(line).map_err(|e| e.to_string())).transpose()
}

/// What is asked in the other thread.
enum Question {
    Overview,
    Explain(u32),
}

/// What it answers.
enum Told {
    Overview(Result<Box<Overview>, String>),
    Explained(u32, Result<Option<Box<Explanation>>, String>),
}

/// The agent, as the thread that asks it.
struct Agent {
    ask: Sender<Question>,
    told: Receiver<Told>,
}

impl Agent {
    /// The thread ends when this is dropped, after what it is asking.
    fn start(path: PathBuf) -> Self {
        let ((ask, questions), (tell, told)) = (channel(), channel());
        thread::spawn(move || {
            while let Ok(question) = questions.recv() {
                let answer = match question {
                    Question::Overview => {
                        Told::Overview(overview(&path).map(Box::new).map_err(|e| e.to_string()))
                    }
                    Question::Explain(pid) => Told::Explained(pid, explanation(&path, pid)),
                };
                if tell.send(answer).is_err() {
                    break;
                }
            }
        });
        Self { ask, told }
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    agent: &Agent,
    interval: Duration,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    let mut asked_at = Instant::now();
    let (mut waiting, mut changed) = (false, true);
    while !ended.load(Ordering::Relaxed) {
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw::draw(app, frame))?;
        }
        if !waiting && asked_at.elapsed() >= interval {
            asked_at = Instant::now();
            waiting = true;
            agent.ask.send(Question::Overview)?;
            if let Pane::Explanation { pid, .. } = app.pane {
                agent.ask.send(Question::Explain(pid))?;
            }
        }
        // One look at the keyboard for each screen, and then all that was typed meanwhile.
        let mut more = event::poll(GLANCE)?;
        while more {
            changed = true;
            if let Event::Key(key) = event::read()? {
                match app.key(key) {
                    Wish::Quit => return Ok(()),
                    Wish::Explain(pid) => agent.ask.send(Question::Explain(pid))?,
                    Wish::Nothing => {}
                }
            }
            more = event::poll(Duration::ZERO)?;
        }
        for told in agent.told.try_iter() {
            changed = true;
            waiting &= !matches!(told, Told::Overview(_));
            match told {
                Told::Overview(Ok(new)) => app.take(*new),
                Told::Overview(Err(why)) => app.trouble = Some(why),
                Told::Explained(pid, known) => app.take_explanation(pid, known),
            }
        }
    }
    Ok(())
}
