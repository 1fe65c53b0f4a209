//! The seeded bugs as data: every TOML file below `tests/mutants`.
//!
//! A file that cannot be parsed, or has a field of another name, is an error that names it. `check`
//! compares the data with the sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Where the files are, below the root of the checkout.
pub(super) const DIRECTORY: &str = "tests/mutants";

/// The contents of all files.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) mutants: Vec<Mutant>,
    /// Changes that the copy of the tree needs whichever bug is chosen.
    pub(super) setup: Vec<Setup>,
}

/// One seeded bug.
#[derive(Debug)]
pub(super) struct Mutant {
    /// The file that describes it, relative to the root.
    pub(super) origin: String,
    pub(super) name: String,
    /// What goes wrong, in one sentence.
    pub(super) bug: String,
    /// The tests that must catch it: `program` or `program::module`.
    pub(super) suite: String,
    pub(super) edits: Vec<Edit>,
}

/// One change of the copy that is no bug.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) origin: String,
    pub(super) edit: Edit,
}

/// One place in one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    /// Relative to the root, with `/`.
    pub(super) file: String,
    /// What surrounds the text, if the text occurs elsewhere too.
    pub(super) within: Option<String>,
    pub(super) text: String,
    pub(super) replacement: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    mutant: Vec<Entry>,
    #[serde(default)]
    setup: Vec<Edit>,
}

/// A mutant as written: with one edit inline, or with several below it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    bug: String,
    suite: String,
    file: Option<String>,
    within: Option<String>,
    text: Option<String>,
    replacement: Option<String>,
    #[serde(default)]
    edit: Vec<Edit>,
}

/// Reads all files below `root`, in the order of their names.
pub(super) fn load(root: &Path) -> Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    let mut paths = Vec::new();
    collect(&root.join(DIRECTORY), &mut paths)?;
    paths.sort();
    for path in paths {
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let origin = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        catalogue.add(&origin, &text)?;
    }
    Ok(catalogue)
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    Ok(())
}

impl Catalogue {
    fn add(&mut self, origin: &str, text: &str) -> Result<()> {
        let contents: Contents =
            toml::from_str(text).with_context(|| format!("cannot parse {origin}"))?;
        for entry in contents.mutant {
            let name = entry.name.clone();
            let mutant = entry.mutant(origin);
            self.mutants.push(mutant.with_context(|| {
                format!("{origin}: {name}: give file, text and replacement, or [[mutant.edit]]s")
            })?);
        }
        let setup = contents.setup.into_iter().map(|edit| Setup {
            origin: origin.to_owned(),
            edit,
        });
        self.setup.extend(setup);
        Ok(())
    }
}

impl Entry {
    /// `None` if it has places of both forms, half a place, or none.
    fn mutant(self, origin: &str) -> Option<Mutant> {
        let edits = match (self.file, self.text, self.replacement) {
            (Some(file), Some(text), Some(replacement)) if self.edit.is_empty() => vec![Edit {
                file,
                within: self.within,
                text,
                replacement,
            }],
            (None, None, None) if self.within.is_none() && !self.edit.is_empty() => self.edit,
            _ => return None,
        };
        Some(Mutant {
            origin: origin.to_owned(),
            name: self.name,
            bug: self.bug,
            suite: self.suite,
            edits,
        })
    }
}

#[cfg(test)]
pub(super) fn parsed(text: &str) -> Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    catalogue.add("tests/mutants/x.toml", text)?;
    Ok(catalogue)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[[mutant]]\nname = 'a_bug'\nbug = 'It errs.'\nsuite = 'kernel'\n";
    const PLACE: &str = "file = 'ebpf/src/x.rs'\ntext = 'a'\nreplacement = 'b'\n";

    #[test]
    fn a_bug_has_one_place_in_line_or_several_below() {
        let one = parsed(&format!("{HEAD}{PLACE}")).unwrap();
        assert_eq!(one.mutants[0].edits.len(), 1);
        let edit = format!("[[mutant.edit]]\n{PLACE}");
        let two = parsed(&format!("{HEAD}{edit}{edit}")).unwrap();
        assert_eq!(two.mutants[0].edits.len(), 2);
        for wrong in [
            HEAD.to_owned(),
            format!("{HEAD}file = 'ebpf/src/x.rs'\n"),
            format!("{HEAD}{PLACE}{edit}"),
            format!("{HEAD}within = 'a'\n{edit}"),
        ] {
            let error = parsed(&wrong).unwrap_err().to_string();
            assert!(
                error.contains("a_bug: give file, text and replacement"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_misspelt_field_names_the_file() {
        let error = parsed(&format!("{HEAD}{PLACE}replacment = 'c'\n")).unwrap_err();
        assert!(
            error.to_string().contains("tests/mutants/x.toml"),
            "{error}"
        );
        assert!(
            parsed("[[setup]]\nfile = 'a'\ntext = 'a'\nreplacement = 'b'\nname = 'c'").is_err()
        );
    }
}
