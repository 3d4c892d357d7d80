//! Chromium without a window: what a page looks like, and what its script has made of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::agent::{Outcome, run_to_end};
use crate::drill::env;
use crate::scene::Scene;

/// A browser may take so long on a busy machine.
pub const SLOW: Duration = Duration::from_secs(300);

/// Opens a page without a network, a profile or anything else from outside the scene.
#[track_caller]
pub fn browse(scene: &Scene, page: &Path, args: &[&str]) -> Outcome {
    let chromium = env::program("chromium", "chromium").unwrap();
    let mut command = Command::new(chromium);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", scene.path("profile").display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .env("HOME", scene.path(""));
    let outcome = run_to_end(scene, &mut command, SLOW);
    assert!(outcome.status.success(), "{outcome:#?}");
    outcome
}

/// Writes what a page looks like in a window of that size to a PNG file.
#[track_caller]
pub fn picture(scene: &Scene, page: &Path, file: &Path, (width, height): (u32, u32)) {
    let shot = format!("--screenshot={}", file.display());
    browse(scene, page, &[&shot, &format!("--window-size={width},{height}"), "--hide-scrollbars"]);
    let bytes = fs::read(file).unwrap();
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{} bytes", bytes.len());
}
