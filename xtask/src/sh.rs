//! What the tasks share: the repository's root, finding programs, and running them.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The repository's root, from which every task works.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that started this task, so that what it starts uses the same toolchain.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// Removes what is there and makes the folder anew.
pub(crate) fn empty(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// One of cargo's programs in exactly this version, installed below [`target`]: what a person has is left alone.
pub(crate) fn tool(name: &str, version: &str) -> Result<PathBuf> {
    let place = target().join("tools").join(format!("{name}-{version}"));
    let program = place.join("bin").join(name);
    if !program.exists() {
        eprintln!("installing {name} {version} below target: this takes a few minutes, once");
        let mut cargo = cargo();
        cargo.args(["install", &format!("{name}@{version}"), "--locked", "--root"]).arg(&place);
        // Not this project's toolchain for the programs, nor its flags.
        run(&mut cargo)?;
    }
    Ok(program)
}

/// Where `cargo install` puts programs.
pub(crate) fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.unwrap_or_else(|| PathBuf::from(".cargo")).join("bin")
}

/// The full path of a program on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The full path of a program on `PATH`, or else where `cargo install` puts programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    on_path(program).or_else(|| Some(cargo_bin().join(program)).filter(|file| file.is_file()))
}

/// Whether this process may do everything on this machine.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What a command prints on stdout, or `None` when it cannot be started or fails. Its stderr is dropped: for questions.
pub(crate) fn ask<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Option<String> {
    // A question must not set off a download of the toolchain that it asks about.
    let output = Command::new(program).args(args).env("RUSTUP_AUTO_INSTALL", "0").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says what will run, runs it with its output on stderr, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    run_with(command, io::stderr().into())
}

/// The same for a program that tells of every step that it takes: only its errors are shown.
pub(crate) fn run_quietly(command: &mut Command) -> Result<()> {
    run_with(command, Stdio::null())
}

fn run_with(command: &mut Command, stdout: Stdio) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// A command as a person would type it.
fn shown(command: &Command) -> String {
    let envs = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    let envs = envs.filter(|(name, _)| *name != "PATH").map(|(name, value)| format!("{name}={value}"));
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args()).map(|word| word.display().to_string());
    envs.chain(words).collect::<Vec<_>>().join(" ")
}
