//! The list of retired words: its format, and what makes an entry valid.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// Files that are not searched at all, or not in every line.
    #[serde(default)]
    pub(super) skip: Vec<Skip>,
    /// The terms.
    pub(super) retired: Vec<Retired>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Skip {
    pub(super) path: String,
    /// Only lines that start with this are skipped.
    pub(super) lines_starting: Option<String>,
    reason: String,
}

/// Terms with one replacement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retired {
    /// Words and phrases in lower case, found in any case and as parts of identifiers.
    #[serde(default)]
    pub(super) words: Vec<String>,
    /// Names, paths and other text that is found exactly as it is written here.
    #[serde(default)]
    pub(super) names: Vec<String>,
    /// What to write.
    pub(super) instead: String,
    /// Only these files are searched.
    #[serde(default)]
    pub(super) only: Vec<String>,
    #[serde(default)]
    pub(super) except: Vec<Except>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Except {
    pub(super) path: String,
    reason: String,
}

impl List {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        for skip in &list.skip {
            ensure!(
                !skip.reason.trim().is_empty(),
                "{} is skipped without a reason",
                skip.path
            );
        }
        list.retired.iter().try_for_each(Retired::validate)?;
        Ok(list)
    }
}

impl Skip {
    pub(super) fn covers(&self, path: &str) -> bool {
        covers(&self.path, path)
    }
}

impl Retired {
    pub(super) fn terms(&self) -> impl Iterator<Item = &str> {
        self.words.iter().chain(&self.names).map(String::as_str)
    }

    /// Whether the entry is about this file.
    pub(super) fn applies_to(&self, path: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| covers(only, path))
    }

    fn validate(&self) -> Result<()> {
        let term = self.terms().next().unwrap_or("");
        ensure!(!term.is_empty(), "an entry has neither words nor names");
        ensure!(
            !self.instead.trim().is_empty(),
            "`{term}` has no replacement"
        );
        for word in &self.words {
            ensure!(
                word.chars().all(|c| c.is_lowercase() || c == ' '),
                "`{word}` is no word or phrase in lower case: list it under `names`"
            );
        }
        for except in &self.except {
            ensure!(
                !except.reason.trim().is_empty(),
                "`{term}` is excepted in {} without a reason",
                except.path
            );
        }
        Ok(())
    }
}

/// Whether `pattern`, a file or a directory that ends in `/`, covers `path`.
pub(super) fn covers(pattern: &str, path: &str) -> bool {
    path == pattern || (pattern.ends_with('/') && path.starts_with(pattern))
}
