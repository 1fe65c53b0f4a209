//! The ledger: a file of allocated numbers and the content that each stands for, written before a
//! number is used.
//!
//! One line per allocation, `<space> <digest in hex> <number>`, appended; compacted once after a
//! start. Invariants: an incomplete last line is ignored; losing the ledger leads to new numbers,
//! never to a wrong one. The file is not synced: the maps do not survive a power cut either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::policy::{Allocation, Digest, Space};

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {operation}: {error}; the agent needs to write in its state-dir", path.display())]
pub struct LedgerError {
    path: PathBuf,
    operation: &'static str,
    error: io::Error,
}

/// The ledger file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
}

impl Ledger {
    /// The ledger in a state directory; nothing is opened yet.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("numbers"),
            file: None,
        }
    }

    /// All allocations written so far; none if there is no file.
    ///
    /// # Errors
    /// When the file exists but cannot be read.
    pub fn load(&self) -> Result<Vec<Allocation>, LedgerError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().filter_map(parse).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// Appends allocations.
    ///
    /// # Errors
    /// When they cannot be written; the numbers must not be used then.
    pub fn append(&mut self, fresh: &[Allocation]) -> Result<(), LedgerError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let text = render(fresh);
        let written = self.open().and_then(|file| file.write_all(text.as_bytes()));
        written.map_err(|error| self.failed("append to", error))
    }

    /// Replaces the whole ledger, atomically.
    ///
    /// # Errors
    /// When it cannot be replaced; the old file stays.
    pub fn rewrite(&mut self, all: &[Allocation]) -> Result<(), LedgerError> {
        let staged = self.path.with_extension("new");
        let replaced =
            fs::write(&staged, render(all)).and_then(|()| fs::rename(&staged, &self.path));
        self.file = None;
        replaced.map_err(|error| self.failed("rewrite", error))
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            self.file = Some(file);
        }
        self.file
            .as_mut()
            .ok_or_else(|| io::Error::other("not open"))
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> LedgerError {
        LedgerError {
            path: self.path.clone(),
            operation,
            error,
        }
    }
}

fn render(allocations: &[Allocation]) -> String {
    let line = |a: &Allocation| format!("{} {:032x} {}\n", a.space.name(), a.digest.0, a.number);
    allocations.iter().map(line).collect()
}

fn parse(line: &str) -> Option<Allocation> {
    let mut words = line.split(' ');
    let (space, digest, number) = (words.next()?, words.next()?, words.next()?);
    let space = Space::ALL.into_iter().find(|known| known.name() == space)?;
    let whole = digest.len() == 32 && words.next().is_none();
    let digest = Digest(u128::from_str_radix(digest, 16).ok()?);
    let allocation = Allocation {
        space,
        digest,
        number: number.parse().ok()?,
    };
    whole.then_some(allocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(number: u32) -> Allocation {
        Allocation {
            space: Space::Class,
            digest: Digest(u128::from(number) << 64),
            number,
        }
    }

    #[test]
    fn appended_and_rewritten_allocations_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::in_dir(dir.path());
        assert!(ledger.load().unwrap().is_empty());
        ledger.append(&[allocation(1), allocation(2)]).unwrap();
        ledger.append(&[allocation(3)]).unwrap();
        assert_eq!(
            ledger.load().unwrap(),
            [allocation(1), allocation(2), allocation(3)]
        );
        ledger.rewrite(&[allocation(2)]).unwrap();
        ledger.append(&[allocation(9)]).unwrap();
        assert_eq!(ledger.load().unwrap(), [allocation(2), allocation(9)]);
    }

    #[test]
    fn an_incomplete_last_line_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::in_dir(dir.path());
        ledger.append(&[allocation(1)]).unwrap();
        fs::write(
            dir.path().join("numbers"),
            format!("{}class 00ff", render(&[allocation(1)])),
        )
        .unwrap();
        assert_eq!(ledger.load().unwrap(), [allocation(1)]);
    }
}
