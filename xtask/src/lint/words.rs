//! Retired words: terms that Ringfence no longer uses must not come back.
//!
//! `retired_words.toml` lists them, each with what to write instead. Every text file of the
//! checkout is searched, file names included: comments, strings, prose, and identifiers word by
//! word. Words match whole and in any case; names match exactly. Every exception is in the list,
//! with a reason, and one that no longer matches anything is a finding too. Spelling and grammar
//! are not checked.

mod list;
mod split;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Finding;
use crate::child;
use list::List;
use split::Word;

/// The list, relative to the root of the checkout.
const LIST: &str = "xtask/src/lint/retired_words.toml";

pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let text =
        fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let list = List::parse(&text).with_context(|| format!("{LIST} is malformed"))?;
    let mut search = Search::new(&list);
    for path in tracked(root)? {
        let bytes = match fs::read(root.join(&path)) {
            Ok(bytes) => bytes,
            // Deleted, but not committed yet.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        };
        // Binary files have no words.
        if let Ok(text) = String::from_utf8(bytes) {
            search.file(&path, &text);
        }
    }
    Ok(search.finish())
}

/// The files that git tracks, and those it would add.
fn tracked(root: &Path) -> Result<Vec<String>> {
    let mut git = child::command("git");
    git.current_dir(root);
    // The checkout may belong to another user than root, who runs the tests.
    git.args(["-c", "safe.directory=*", "ls-files", "-z"]);
    git.args(["--cached", "--others", "--exclude-standard"]);
    let names = child::output_of(&mut git)?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(String::from).collect())
}

/// The search of all files, one after the other.
struct Search<'a> {
    list: &'a List,
    /// By first word: the words that follow it, and the entry.
    phrases: HashMap<String, Vec<(Vec<String>, usize)>>,
    /// Skips and exceptions that applied, as (entry, index); skips have no entry.
    used: BTreeSet<(Option<usize>, usize)>,
    findings: Vec<Finding>,
}

impl<'a> Search<'a> {
    fn new(list: &'a List) -> Self {
        let mut phrases: HashMap<String, Vec<(Vec<String>, usize)>> = HashMap::new();
        for (entry, retired) in list.retired.iter().enumerate() {
            for phrase in &retired.words {
                let mut words = split::words(phrase).into_iter().map(|word| word.text);
                if let Some(first) = words.next() {
                    let rest = words.collect();
                    phrases.entry(first).or_default().push((rest, entry));
                }
            }
        }
        Self {
            list,
            phrases,
            used: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    fn file(&mut self, path: &str, text: &str) {
        let mut skipped_lines = Vec::new();
        for (index, skip) in self.list.skip.iter().enumerate() {
            if !skip.covers(path) {
                continue;
            }
            self.used.insert((None, index));
            match &skip.lines_starting {
                None => return,
                Some(start) => skipped_lines.push(start.as_str()),
            }
        }
        for (_, (entry, found)) in self.hits(path, path) {
            let message = format!("the file's name has {}", self.message(entry, &found));
            self.report(entry, path, path.to_owned(), message);
        }
        let lines: Vec<&str> = text.lines().collect();
        for (line, (entry, found)) in self.hits(path, text) {
            let content = lines.get(line - 1).copied().unwrap_or("");
            if skipped_lines.iter().any(|start| content.starts_with(start)) {
                continue;
            }
            let message = self.message(entry, &found);
            self.report(entry, path, format!("{path}:{line}"), message);
        }
    }

    fn message(&self, entry: usize, found: &str) -> String {
        let instead = self.list.retired.get(entry).map(|retired| &retired.instead);
        format!("`{found}`: write {}", instead.map_or("", String::as_str))
    }

    /// Reports a hit, unless the entry excepts the file.
    fn report(&mut self, entry: usize, path: &str, place: String, message: String) {
        let excepted = self.list.retired.get(entry).and_then(|retired| {
            let mut exceptions = retired.except.iter();
            exceptions.position(|except| list::covers(&except.path, path))
        });
        match excepted {
            Some(index) => _ = self.used.insert((Some(entry), index)),
            None => self.findings.push(Finding { place, message }),
        }
    }

    /// Each hit with its line: the entry, and what was found.
    fn hits(&self, path: &str, text: &str) -> Vec<(usize, (usize, String))> {
        let mut hits = Vec::new();
        let words = split::words(text);
        for (index, first) in words.iter().enumerate() {
            let following = words.get(index + 1..).unwrap_or_default();
            for (rest, entry) in self.phrases.get(&first.text).into_iter().flatten() {
                if follows(rest, following) {
                    let mut found = first.text.clone();
                    rest.iter().for_each(|word| found.extend([" ", word]));
                    hits.push((first.line, (*entry, found)));
                }
            }
        }
        for (entry, retired) in self.list.retired.iter().enumerate() {
            for name in &retired.names {
                let lines = split::lines_with(text, name).into_iter();
                hits.extend(lines.map(|line| (line, (entry, name.clone()))));
            }
        }
        hits.retain(|(_, (entry, _))| self.applies(*entry, path));
        hits.sort();
        hits
    }

    fn applies(&self, entry: usize, path: &str) -> bool {
        let retired = self.list.retired.get(entry);
        retired.is_some_and(|retired| retired.applies_to(path))
    }

    /// The findings, including exceptions that were not needed.
    fn finish(mut self) -> Vec<Finding> {
        let mut unused = |key, path: &str| {
            if !self.used.contains(&key) {
                self.findings.push(Finding {
                    place: LIST.to_owned(),
                    message: format!("the exception for {path} covers nothing: remove it"),
                });
            }
        };
        for (index, skip) in self.list.skip.iter().enumerate() {
            unused((None, index), &skip.path);
        }
        for (entry, retired) in self.list.retired.iter().enumerate() {
            for (index, except) in retired.except.iter().enumerate() {
                let term = retired.terms().next().unwrap_or("");
                unused(
                    (Some(entry), index),
                    &format!("`{term}` in {}", except.path),
                );
            }
        }
        self.findings
    }
}

/// Whether `following` starts with `rest`, with nothing but space between the words.
fn follows(rest: &[String], following: &[Word]) -> bool {
    rest.len() <= following.len()
        && rest
            .iter()
            .zip(following)
            .all(|(wanted, word)| word.continues && word.text == *wanted)
}

#[cfg(test)]
mod tests;
