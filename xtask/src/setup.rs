//! `cargo xtask setup`: what compiles the BPF programs, found or installed.
//!
//! Two things are needed. A compiler with the sources of `core`, because there is no compiled `core` for BPF: rustup's
//! nightly with rust-src, or a stable one (Debian's, with its sources) whose unstable options are unlocked. And a
//! bpf-linker whose LLVM is not older than the compiler's, because it reads the compiler's bitcode.
//!
//! What is there already is used. What is missing comes from Debian where apt-get and root are at hand, since the
//! linker needs LLVM's development files from there in any case; elsewhere the compiler comes from rustup.

use std::{
    env,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Debian's newest Rust, which it keeps for building browsers: compiler, library sources, cargo.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];
/// The LLVM that Debian's newest Rust is built with.
const DEBIAN_LLVM: u32 = 22;
/// The name under which rustup knows Debian's compiler, and where that lives.
const LINKED: (&str, &str) = ("bpf", "/usr");
const NIGHTLY: &str = "nightly";
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";
/// The LLVMs with which that version can be built.
const LINKER_LLVMS: RangeInclusive<u32> = 21..=23;
/// The programs are members of this workspace and so need at least its Rust.
const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Tells `reaper-userspace/build.rs` to compile the programs, and with which of rustup's toolchains. Unless that is a
/// nightly, the build script unlocks the unstable options that it needs. A person may set it, to choose.
pub(crate) const TOOLCHAIN_ENV: &str = "REAPER_BPF_TOOLCHAIN";

/// A compiler and a linker that fit each other.
pub(crate) struct Toolchain {
    name: String,
    linker: Linker,
}

impl Toolchain {
    /// Makes a cargo command compile the BPF programs with this toolchain.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        cargo.env(TOOLCHAIN_ENV, &self.name);
        // rustc takes the first bpf-linker on PATH. PATH is left alone where that is the right one: another order of
        // its folders could change which compiler is found.
        let path = env::var_os("PATH").unwrap_or_default();
        if sh::on_path(LINKER).as_ref() != Some(&self.linker.path)
            && let Some(folder) = self.linker.path.parent()
            && let Ok(path) = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&path)))
        {
            cargo.env("PATH", path);
        }
    }
}

/// The toolchain that is there, if one is: looks, and installs nothing.
pub(crate) fn look() -> Option<Toolchain> {
    fitting(&compilers())
}

/// The toolchain, with what is missing installed.
pub(crate) fn ensure() -> Result<Toolchain> {
    let compilers = compilers();
    if let Some(toolchain) = fitting(&compilers) {
        return Ok(toolchain);
    }
    for unusable in compilers.iter().filter_map(|compiler| Some((compiler, compiler.lacks()?))) {
        say(&format!("{} is not usable: {}", unusable.0, unusable.1));
    }
    let chosen = env::var_os(TOOLCHAIN_ENV).is_some();
    let compiler = match compilers.into_iter().find(|compiler| compiler.lacks().is_none()) {
        None if chosen => bail!("{TOOLCHAIN_ENV} names a toolchain that is not usable"),
        None => install_compiler()?,
        Some(compiler) => match install_linker(&compiler) {
            // A nightly may be ahead of every LLVM that Debian has; Debian's own compiler never is.
            Err(error) if !chosen && compiler.name != LINKED.0 && sh::on_path("apt-get").is_some() => {
                say(&format!("no linker for {compiler}: {error:#}"));
                debian_compiler()?
            }
            done => done.map(|()| compiler)?,
        },
    };
    if linker_for(&compiler).is_none() {
        install_linker(&compiler)?;
    }
    fitting(&[compiler]).with_context(|| format!("{LINKER} was installed and still is not usable"))
}

/// The first compiler with a linker that fits, said in one line.
fn fitting(compilers: &[Compiler]) -> Option<Toolchain> {
    let usable = compilers.iter().filter(|compiler| compiler.lacks().is_none());
    let (compiler, linker) = usable.filter_map(|compiler| Some((compiler, linker_for(compiler)?))).next()?;
    say(&format!(
        "{compiler}, {LINKER} with {}",
        linker.llvm.map_or("its own LLVM".into(), |v| format!("LLVM {v}"))
    ));
    Some(Toolchain { name: compiler.name.clone(), linker })
}

fn say(what: &str) {
    eprintln!("setup: {what}");
}

// --- The compiler ---

struct Compiler {
    /// For `rustup run`. Where there is no rustup it only says whether this is a nightly.
    name: String,
    /// As rustc says it: `1.96.0`, `1.97.0-nightly`.
    release: String,
    /// LLVM's major version.
    llvm: u32,
    /// Whether the sources of `core` are there.
    sources: bool,
}

impl Compiler {
    /// Why the programs cannot be compiled with this one.
    fn lacks(&self) -> Option<String> {
        if version(&self.release) < version(OLDEST_RUST) {
            Some(format!("older than {OLDEST_RUST}"))
        } else if !LINKER_LLVMS.contains(&self.llvm) {
            Some(format!("{LINKER} {LINKER_VERSION} cannot be built with LLVM {}", self.llvm))
        } else if !self.sources {
            Some("no library sources (rust-src)".into())
        } else {
            None
        }
    }

    /// Asks a rustc, started by these words.
    fn of(name: &str, rustc: &[&str]) -> Option<Self> {
        let (program, args) = rustc.split_first()?;
        let about = sh::ask(program, args.iter().chain(&["-vV"]))?;
        let field = |key| about.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let sysroot = sh::ask(program, args.iter().chain(&["--print", "sysroot"]))?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
        Some(Self {
            name: name.into(),
            release: field("release:")?.into(),
            llvm: major(field("LLVM version:")?)?,
            sources: core.is_file(),
        })
    }

    /// One of rustup's toolchains.
    fn of_rustup(name: &str) -> Option<Self> {
        Self::of(name, &["rustup", "run", name, "rustc"])
    }
}

impl std::fmt::Display for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "toolchain {} (rustc {}, LLVM {})", self.name, self.release, self.llvm)
    }
}

/// The compilers to choose from, the preferred one first.
fn compilers() -> Vec<Compiler> {
    let chosen = env::var(TOOLCHAIN_ENV).ok();
    let Some(toolchains) = sh::ask("rustup", ["toolchain", "list"]) else {
        // Without rustup there is the one on PATH, which cargo uses too.
        let current = Compiler::of(LINKED.0, &["rustc"]);
        let current = current.map(|compiler| match compiler.release.contains(NIGHTLY) {
            true => Compiler { name: NIGHTLY.into(), ..compiler },
            false => compiler,
        });
        return current.into_iter().collect();
    };
    match chosen {
        Some(name) => Compiler::of_rustup(&name).into_iter().collect(),
        None => {
            let installed =
                |name: &str| toolchains.lines().any(|line| line.split(['-', ' ']).next() == Some(name));
            let names = [LINKED.0, NIGHTLY].into_iter().filter(|name| installed(name));
            names.filter_map(Compiler::of_rustup).collect()
        }
    }
}

fn install_compiler() -> Result<Compiler> {
    if sh::on_path("apt-get").is_some() {
        match debian_compiler() {
            Ok(compiler) => return Ok(compiler),
            Err(error) if !sh::is_root() => return Err(error),
            Err(error) => say(&format!("Debian's compiler cannot be had: {error:#}")),
        }
    }
    if sh::on_path("rustup").is_none() {
        bail!("no compiler for the BPF programs: install rustup, or run this as root on Debian");
    }
    say("installing rustup's nightly with the library sources");
    sh::run(Command::new("rustup").args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]).args([
        "--component",
        "rust-src",
        "--no-self-update",
    ]))?;
    Compiler::of_rustup(NIGHTLY).context("rustup installed a nightly that does not start")
}

/// Installs Debian's compiler, unless it is there, and makes rustup know it, where there is a rustup.
fn debian_compiler() -> Result<Compiler> {
    let rustc = Path::new(LINKED.1).join("bin/rustc");
    let there = || Compiler::of(LINKED.0, &[rustc.to_str()?]).filter(|compiler| compiler.lacks().is_none());
    if there().is_none() {
        let packages = DEBIAN_COMPILER.map(String::from).into_iter().chain(debian_llvm(DEBIAN_LLVM));
        apt_install(&packages.collect::<Vec<_>>())?;
    }
    let compiler = there().with_context(|| format!("{} is not usable", rustc.display()))?;
    if sh::on_path("rustup").is_some() {
        say("telling rustup of Debian's compiler");
        sh::run(Command::new("rustup").args(["toolchain", "link", LINKED.0, LINKED.1]))?;
        return Compiler::of_rustup(LINKED.0).context("rustup does not run Debian's compiler");
    }
    Ok(compiler)
}

// --- The linker ---

#[derive(Clone)]
struct Linker {
    path: PathBuf,
    /// The major version of the LLVM that it loads; `None` when LLVM is part of it.
    llvm: Option<u32>,
}

/// The first linker that is there, starts, and reads what this compiler writes. One with LLVM built in does not tell its
/// version: it was made by somebody who chose it, so it is taken.
fn linker_for(compiler: &Compiler) -> Option<Linker> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).chain([sh::cargo_bin()]).map(|folder| folder.join(LINKER));
    found.filter(|file| file.is_file()).find_map(|path| {
        sh::ask(path.to_str()?, ["--version"])?;
        let llvm = sh::ask("ldd", [&path]).and_then(|libraries| loaded_llvm(&libraries));
        llvm.is_none_or(|llvm| llvm >= compiler.llvm).then_some(Linker { path, llvm })
    })
}

/// The LLVM among the libraries that `ldd` lists: `libLLVM.so.22.1 => …`, `libLLVM-21.so => …`.
fn loaded_llvm(libraries: &str) -> Option<u32> {
    let name = libraries.lines().find_map(|line| line.trim().strip_prefix("libLLVM"))?;
    major(name.trim_start_matches(".so.").trim_start_matches('-'))
}

fn install_linker(compiler: &Compiler) -> Result<()> {
    let llvms = *LINKER_LLVMS.start().max(&compiler.llvm)..=*LINKER_LLVMS.end();
    let (llvm, prefix) = match llvms.clone().find_map(llvm_prefix) {
        Some(found) => found,
        None if sh::on_path("apt-get").is_some() => {
            apt_install(&debian_llvm(compiler.llvm))?;
            llvm_prefix(compiler.llvm).context("LLVM's development files were installed and are not found")?
        }
        None => bail!(
            "{LINKER} needs an LLVM from {} to {} with its development files (libLLVM.so and llvm-config; set \
             LLVM_PREFIX if they are in a folder of their own): install them, or a ready-made {LINKER}, and try again",
            llvms.start(),
            llvms.end()
        ),
    };
    say(&format!("building {LINKER} {LINKER_VERSION} with LLVM {llvm} of {}", prefix.display()));
    // --force: one that is there and does not fit is replaced.
    let mut cargo = sh::cargo();
    cargo.args([
        "install",
        &format!("{LINKER}@{LINKER_VERSION}"),
        "--locked",
        "--force",
        "--no-default-features",
    ]);
    sh::run(cargo.arg("--features").arg(format!("llvm-{llvm}")).env("LLVM_PREFIX", prefix))
}

/// Where LLVM of this major version is installed with what a program needs to be linked to it.
fn llvm_prefix(wanted: u32) -> Option<(u32, PathBuf)> {
    let own = env::var("LLVM_PREFIX").ok().map(|prefix| format!("{prefix}/bin/llvm-config"));
    let debian = format!("/usr/lib/llvm-{wanted}/bin/llvm-config");
    let configs = own.into_iter().chain([debian, format!("llvm-config-{wanted}"), "llvm-config".into()]);
    configs.into_iter().find_map(|config| {
        let prefix = PathBuf::from(sh::ask(&config, ["--prefix"])?.trim());
        let fits = major(&sh::ask(&config, ["--version"])?) == Some(wanted)
            && ["lib64/libLLVM.so", "lib/libLLVM.so"].iter().any(|library| prefix.join(library).exists());
        fits.then_some((wanted, prefix))
    })
}

// --- Debian's packages ---

/// What bpf-linker is built against: LLVM, and the libraries that LLVM's own linker flags name.
fn debian_llvm(llvm: u32) -> [String; 3] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "libzstd-dev".into()]
}

/// Installs packages as root; for anybody else the error is the one command to run.
pub(crate) fn apt_install(packages: &[String]) -> Result<()> {
    // --no-remove: these packages conflict with Debian's other Rust packages, which somebody else may need.
    let options = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    if !sh::is_root() {
        bail!(
            "packages are missing and this is not root; run\n  \
             sudo sh -c 'apt-get update && apt-get {} {}'\nand then this again",
            options.join(" "),
            packages.join(" ")
        );
    }
    say(&format!("installing Debian's packages: {}", packages.join(" ")));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    // An index that cannot be fetched is not the end: what is known of the packages may do.
    if let Err(error) = sh::run_quietly(apt().arg("update")) {
        say(&format!("{error:#}"));
    }
    sh::run_quietly(apt().args(options).args(packages))
}

// --- Versions ---

/// The number before the first dot.
fn major(version: &str) -> Option<u32> {
    let digits = version.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Major and minor, for comparing.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| major(number).unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Compiler, loaded_llvm, version};

    #[test]
    fn the_linkers_llvm_is_read_from_its_libraries() {
        let new =
            "\tlinux-vdso.so.1 (0x1)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x2)\n";
        assert_eq!(loaded_llvm(new), Some(22));
        assert_eq!(loaded_llvm("\tlibLLVM-21.so => /usr/lib/libLLVM-21.so (0x2)\n"), Some(21));
        assert_eq!(loaded_llvm("\tstatically linked\n"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("1.100.0") > version("1.95"));
        assert!(version("1.96.0-nightly") >= version("1.96"));
        assert!(version("1.85.1") < version("1.95"));
    }

    #[test]
    fn a_compiler_says_what_it_lacks() {
        let good = || Compiler { name: "bpf".into(), release: "1.999.0".into(), llvm: 22, sources: true };
        assert_eq!(good().lacks(), None);
        assert!(Compiler { release: "1.60.0".into(), ..good() }.lacks().is_some());
        assert!(Compiler { sources: false, ..good() }.lacks().is_some());
        assert!(Compiler { llvm: 99, ..good() }.lacks().is_some());
    }
}
