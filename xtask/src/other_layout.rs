//! `cargo xtask build --other-layout`: an agent of another ABI version, for the tests of upgrade and
//! downgrade.
//!
//! It is built, without optimisation, from a copy of the tree below the target directory in which
//! fields of a conntrack entry have changed places. Invariants: the checkout is only read; a text
//! that is not there once is an error, so that the layouts differ as intended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::mutants::tree;
use crate::toolchain::Toolchain;
use crate::{child, workspace};

/// The environment variable that names the binary to the tests.
pub(crate) const VARIABLE: &str = "RINGFENCE_OTHER_LAYOUT";
/// Another name, so that it does not take the place of the agent in the target directory.
const BINARY: &str = "ringfence-other-layout";
const VERSION: &str = "pub const ABI_VERSION: u32 = ";
const PACKAGE: &str = "[workspace.package]\nversion = \"";

/// Texts to exchange with each other, by file.
const EXCHANGED: [(&str, &str, &str); 2] = [
    (
        "common/src/conntrack.rs",
        "pub expires: u64,",
        "pub state: StateBytes,",
    ),
    (
        "common/src/conntrack.rs",
        "pub verdicts: u8,",
        "pub flags: u8,",
    ),
];
/// Texts to replace, by file.
const REPLACED: [(&str, &str, &str); 3] = [
    (
        "common/src/conntrack.rs",
        "expires at 0, state at 8",
        "state at 0, expires at 8",
    ),
    (
        "common/src/conntrack.rs",
        "verdicts at 60, flags at 61",
        "flags at 60, verdicts at 61",
    ),
    (
        "agent/Cargo.toml",
        "[[bin]]\nname = \"ringfence\"",
        "[[bin]]\nname = \"ringfence-other-layout\"",
    ),
];

/// Builds it and returns the absolute path of its binary.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let target = workspace::target_directory()?;
    let copy = target.join("other-layout");
    let root = workspace::root()?;
    let changed = tree::synchronise(&root, &copy, &altered(&root)?)?;
    eprintln!("{changed} files changed in {}", copy.display());
    let mut cargo = workspace::cargo(toolchain)?;
    cargo
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--package", "ringfence", "--bin", BINARY]);
    child::run(&mut cargo)?;
    Ok(target.join("debug").join(BINARY))
}

/// The files that differ from those of the checkout.
fn altered(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let (library, manifest) = ("common/src/lib.rs", "Cargo.toml");
    let next = |version: &str| Ok((version.parse::<u32>()? + 1).to_string());
    let text = between(&read(root, library)?, VERSION, ";", next)?;
    files.insert(library.to_owned(), text);
    // Cargo tells packages in one target directory apart by this and not by their path.
    let suffixed = |version: &str| Ok(format!("{version}-other"));
    let text = between(&read(root, manifest)?, PACKAGE, "\"", suffixed)?;
    files.insert(manifest.to_owned(), text);
    for (file, one, other) in EXCHANGED {
        let text = text_of(&mut files, root, file)?;
        check_once(text, file, one)?;
        check_once(text, file, other)?;
        let halfway = text.replace(one, "\0").replace(other, one);
        *text = halfway.replace('\0', other);
    }
    for (file, before, after) in REPLACED {
        let text = text_of(&mut files, root, file)?;
        check_once(text, file, before)?;
        *text = text.replace(before, after);
    }
    Ok(files)
}

/// Replaces what is between two texts.
fn between(
    text: &str,
    before: &str,
    after: &str,
    replacement: impl Fn(&str) -> Result<String>,
) -> Result<String> {
    let missing = || format!("no {before:?}: change xtask/src/other_layout.rs");
    let (head, rest) = text.split_once(before).with_context(missing)?;
    let (value, tail) = rest.split_once(after).with_context(missing)?;
    Ok(format!(
        "{head}{before}{}{after}{tail}",
        replacement(value)?
    ))
}

fn text_of<'a>(
    files: &'a mut BTreeMap<String, String>,
    root: &Path,
    file: &str,
) -> Result<&'a mut String> {
    if !files.contains_key(file) {
        files.insert(file.to_owned(), read(root, file)?);
    }
    files.get_mut(file).context("just inserted")
}

fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

fn check_once(text: &str, file: &str, wanted: &str) -> Result<()> {
    let count = text.matches(wanted).count();
    ensure!(
        count == 1,
        "{file} has {wanted:?} {count} times, not once: change xtask/src/other_layout.rs"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_can_be_altered() -> Result<()> {
        let files = altered(&workspace::root()?)?;
        let conntrack = files
            .get("common/src/conntrack.rs")
            .context("not altered")?;
        let place = |text: &str| conntrack.find(text);
        assert!(place("pub state: StateBytes,") < place("pub expires: u64,"));
        assert!(place("pub flags: u8,") < place("pub verdicts: u8,"));
        assert_eq!(files.len(), 4);
        Ok(())
    }
}
