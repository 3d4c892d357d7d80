//! What the loop waits for besides the kernel's events.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::Signal as UnixSignal;

use super::socket::Query;
use crate::clock;
use crate::core::ids::Ns;
use crate::metrics::{self, Metrics};

/// What woke the loop.
pub(super) enum Asked {
    Events(std::io::Result<()>),
    Tick,
    /// There is more to do.
    Nothing,
    Reload,
    Query(Query),
    Metrics(metrics::Ask),
}

/// Stdout, if it is something whose reader can go away; a file is not.
pub(super) fn watch_stdout() -> Option<AsyncFd<OwnedFd>> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().ok()?;
    // SAFETY: the descriptor is owned by what is watched and lives as long.
    unsafe { AsyncFd::register_with_interest(stdout, Interest::ERROR) }.ok()
}

/// Waits until nobody reads stdout any more.
pub(super) async fn reader_gone(stdout: Option<&AsyncFd<OwnedFd>>) {
    match stdout {
        Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

pub(super) async fn hang_up(signal: &mut UnixSignal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Waits until somebody wants the metrics.
pub(super) async fn metrics_asked(metrics: &mut Option<(metrics::Server, Metrics)>) -> metrics::Ask {
    match metrics {
        Some((server, _)) => server.asked().await,
        None => std::future::pending().await,
    }
}

/// Sleeps until a `CLOCK_BOOTTIME`; for ever if there is none. After a suspend it may wake late by as much as one
/// look at the clock: the timers below count no suspended time.
pub(super) async fn sleep_until(deadline: Option<Ns>) {
    match deadline {
        Some(at) => tokio::time::sleep(Duration::from_nanos(at.saturating_sub(clock::now()))).await,
        None => std::future::pending().await,
    }
}
