//! The ledger: a file of allocated numbers and the content that each stands for, written before a
//! number is used.
//!
//! One line per allocation, `<space> <digest in hex> <number> <check>`, and lines
//! `tables-below <number> <check>` for the mark of table numbers ([`super::table_mark`]). Lines are
//! appended; the file is rewritten once it is mostly old lines. Invariants: a line that is not whole
//! is not read, because its check is missing or wrong, and no later line is lost with it; of lines
//! about one number, the last counts. Losing the ledger leads to new numbers, never to a wrong one.
//! The file is not synced: the maps do not survive a power cut either.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::policy::{Allocation, Digest, Space, digest_of};

/// The first word of a line with the mark of table numbers.
const MARK: &str = "tables-below";
/// The file may have this many old lines, besides as many as it has lines in force.
const OLD_LINES: usize = 1024;

/// The ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {operation}: {error}; the agent needs to write in its state-dir", path.display())]
pub struct LedgerError {
    path: PathBuf,
    operation: &'static str,
    error: io::Error,
}

/// The content of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// All allocations, oldest first.
    pub allocations: Vec<Allocation>,
    /// No table number from this one on was ever given; `None` if the file does not say.
    pub tables_below: Option<u32>,
}

/// The ledger file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl Ledger {
    /// The ledger in a state directory; nothing is opened yet.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("numbers"),
            file: None,
            lines: 0,
        }
    }

    /// Everything written so far; nothing if there is no file.
    ///
    /// # Errors
    /// When the file exists but cannot be read.
    pub fn load(&mut self) -> Result<Recorded, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recorded::default()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let mut recorded = Recorded::default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            self.lines += 1;
            match parse(line) {
                Some(Line::Number(allocation)) => recorded.allocations.push(allocation),
                Some(Line::TablesBelow(number)) => {
                    recorded.tables_below = recorded.tables_below.max(Some(number));
                }
                None => {}
            }
        }
        Ok(recorded)
    }

    /// Appends allocations.
    ///
    /// # Errors
    /// When they cannot be written; the numbers must not be used then.
    pub fn append(&mut self, fresh: &[Allocation]) -> Result<(), LedgerError> {
        if fresh.is_empty() {
            return Ok(());
        }
        self.append_lines(fresh.len(), &fresh.iter().map(render).collect::<String>())
    }

    /// Appends a mark: no table number from this one on was given yet.
    ///
    /// # Errors
    /// When it cannot be written; no number from the previous mark on must be used then.
    pub fn mark_tables(&mut self, below: u32) -> Result<(), LedgerError> {
        self.append_lines(1, &render_mark(below))
    }

    /// Whether most lines are old ones, given how many allocations are in force.
    #[must_use]
    pub const fn is_mostly_old(&self, in_force: usize) -> bool {
        self.lines > 2 * in_force + OLD_LINES
    }

    /// Replaces the whole ledger, atomically.
    ///
    /// # Errors
    /// When it cannot be replaced; the old file stays.
    pub fn rewrite(&mut self, all: &[Allocation], tables_below: u32) -> Result<(), LedgerError> {
        let staged = self.path.with_extension("new");
        let text: String = all.iter().map(render).collect();
        let replaced = fs::write(&staged, text + &render_mark(tables_below))
            .and_then(|()| fs::rename(&staged, &self.path));
        self.file = None;
        replaced.map_err(|error| self.failed("rewrite", error))?;
        self.lines = all.len() + 1;
        Ok(())
    }

    fn append_lines(&mut self, count: usize, lines: &str) -> Result<(), LedgerError> {
        let written = self
            .open()
            .and_then(|file| file.write_all(lines.as_bytes()));
        if let Err(error) = written {
            // What was written of it must not become the start of the next line.
            self.file = None;
            return Err(self.failed("append to", error));
        }
        self.lines += count;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path)?;
            // The last line may be torn.
            file.write_all(b"\n")?;
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

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Number(Allocation),
    TablesBelow(u32),
}

fn render(of: &Allocation) -> String {
    checked(&format!(
        "{} {:032x} {}",
        of.space.name(),
        of.digest.0,
        of.number
    ))
}

fn render_mark(below: u32) -> String {
    checked(&format!("{MARK} {below}"))
}

fn checked(said: &str) -> String {
    format!("{said} {:08x}\n", check(said))
}

/// The last 32 bits of the digest of what the line says.
#[expect(clippy::cast_possible_truncation, reason = "the last bits are wanted")]
fn check(said: &str) -> u32 {
    digest_of(&said).0 as u32
}

fn parse(line: &str) -> Option<Line> {
    let (said, sum) = line.rsplit_once(' ')?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != check(said) {
        return None;
    }
    let mut words = said.split(' ');
    let first = words.next()?;
    if first == MARK {
        return Some(Line::TablesBelow(words.next()?.parse().ok()?));
    }
    let space = Space::ALL.into_iter().find(|known| known.name() == first)?;
    let (digest, number) = (words.next()?, words.next()?);
    let digest = Digest(u128::from_str_radix(digest, 16).ok()?);
    Some(Line::Number(Allocation {
        space,
        digest,
        number: number.parse().ok()?,
    }))
}

#[cfg(test)]
mod tests;
