//! The Kubernetes manifests, held against the schemas of the API: a key that the API does not know is an error. What Kustomize
//! makes of them is, too, where there is a program that does.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::sh;

/// A program from PyPI that brings the schemas along.
const NAME: &str = "kubernetes-validate";
const NAME_VERSION: &str = "1.37.0";
/// Releases of Kubernetes: the oldest that knows every key, and the newest that the program has.
const RELEASES: [&str; 2] = ["1.30", "1.37"];

const FOLDER: &str = "packaging/kubernetes";
/// Lists the others, and is nothing that the API knows.
const LIST: &str = "kustomization.yaml";
/// What puts them together as it says, and the word for that.
const BUILDERS: [(&str, &str); 2] = [("kubectl", "kustomize"), ("kustomize", "build")];

/// Fails at the first manifest that is not valid.
pub(super) fn check() -> Result<()> {
    let program = program()?;
    let built = built()?;
    for release in RELEASES {
        let mut check = Command::new(&program);
        check.current_dir(sh::root()).args(["--strict", "--kubernetes-version", release]);
        sh::run(check.args(manifests()?).args(&built))?;
    }
    Ok(())
}

/// What `kubectl apply -k` would send, in a file.
fn built() -> Result<Option<PathBuf>> {
    let folder = sh::root().join(FOLDER);
    let here = BUILDERS.into_iter().find(|(program, _)| sh::on_path(program).is_some());
    let Some((program, word)) = here else {
        eprintln!("dist: neither kubectl nor kustomize is here: what they make of {LIST} is not checked");
        return Ok(None);
    };
    let output = Command::new(program).arg(word).arg(&folder).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{LIST}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let file = sh::target().join("kustomized.yaml");
    fs::write(&file, output.stdout).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Some(file))
}

/// Every manifest, from the repository's root.
fn manifests() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in sh::root().join(FOLDER).read_dir().with_context(|| format!("cannot read {FOLDER}"))? {
        let path = entry?.path();
        let is_manifest = path.extension().is_some_and(|e| e == "yaml") && !path.ends_with(LIST);
        files.extend(is_manifest.then_some(path));
    }
    files.sort();
    Ok(files)
}

/// The program, in a Python environment of its own below `target`.
fn program() -> Result<PathBuf> {
    let place = sh::target().join("tools").join(format!("{NAME}-{NAME_VERSION}"));
    let program = place.join("bin").join(NAME);
    if !program.exists() {
        eprintln!("dist: installing {NAME} {NAME_VERSION} below target");
        // Debian's Python says on stdout what it lacks.
        let made = sh::run(Command::new("python3").args(["-m", "venv"]).arg(&place));
        made.context("the manifests' validator needs Python with venv: apt-get install python3-venv")?;
        let mut pip = Command::new(place.join("bin/pip"));
        sh::run_quietly(pip.args(["--quiet", "install", &format!("{NAME}=={NAME_VERSION}")]))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FOLDER, LIST, manifests};
    use crate::sh;

    #[test]
    fn the_kustomization_lists_every_manifest() {
        let list = fs::read_to_string(sh::root().join(FOLDER).join(LIST)).unwrap();
        let manifests = manifests().unwrap();
        assert!(manifests.len() >= 2, "{manifests:?}");
        for manifest in manifests {
            let name = manifest.file_name().unwrap().to_str().unwrap();
            assert!(list.contains(&format!("  - {name}\n")), "{name} is not in {LIST}");
        }
        assert!(list.contains(&format!("newTag: {}\n", env!("CARGO_PKG_VERSION"))), "{list}");
    }
}
