//! The store of what is known of source files: one file for each record in `<state-dir>/last-good`.
//!
//! A record is a line `ringfence last-good <version> <SHA-256 of the rest>`, a line of JSON, and the text
//! of the last good content, if any. The file `complete` exists while every record is as it should be.
//! Invariants: a record is replaced atomically; one that cannot be used is never taken for absent, and is
//! set aside, whatever is wrong with it; size and number of records are bounded. What a record means is
//! decided in `source::last_good`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::durable_write;
use crate::source::last_good::{Change, FileKey, Kind, Record, Stored, record_name};

/// The version of the format.
const VERSION: u32 = 1;
/// The first words of a record.
const MAGIC: &str = "ringfence last-good";
/// Exists while no record is missing.
const COMPLETE: &str = "complete";
/// The extension of a record that could not be used.
const SET_ASIDE: &str = "set-aside";
/// The most bytes of one record: the largest source file, and some.
const MAX_RECORD: u64 = 9 * 1024 * 1024;
/// The most bytes of all records.
const MAX_TOTAL: u64 = 64 * 1024 * 1024;
/// The most records.
const MAX_RECORDS: usize = 4096;

/// The directory of the records.
pub(super) fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("last-good")
}

/// Why a record cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has format version {0}, and this agent reads {VERSION}")]
    Newer(u32),
    #[error("it is damaged")]
    Damaged,
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("there are more records than an agent writes")]
    TooMuch,
}

/// What a store has.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) stored: Stored,
    /// The files of records that cannot be used.
    pub(super) unusable: Vec<(PathBuf, Unusable)>,
}

/// The head of a record.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    kind: Kind,
    path: std::borrow::Cow<'a, str>,
    state: State,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Good,
    NeverGood,
    LockedDown,
}

/// Reads all records, and changes nothing. A store that cannot be read has none.
pub(super) fn read(directory: &Path) -> Found {
    let mut found = Found::default();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return found,
        Err(error) => {
            let why = Unusable::Unreadable(error.to_string());
            found.unusable.push((directory.to_owned(), why));
            return found;
        }
    };
    let mut left = MAX_TOTAL;
    let (mut is_marked, mut is_listed) = (false, true);
    for entry in entries {
        let Ok(path) = entry.map(|entry| entry.path()) else {
            is_listed = false;
            continue;
        };
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default().into_owned();
        if name == COMPLETE {
            is_marked = true;
        } else if path.extension().is_none() {
            let record = read_record(&path, &name, &mut left);
            let record = record.and_then(|record| {
                let is_room = found.stored.records.len() < MAX_RECORDS;
                is_room.then_some(record).ok_or(Unusable::TooMuch)
            });
            match record {
                Ok((key, record)) => {
                    found.stored.records.insert(key, record);
                }
                Err(why) => {
                    found.stored.lost.insert(name);
                    found.unusable.push((path, why));
                }
            }
        }
    }
    found.stored.is_complete = is_marked && is_listed;
    found
}

fn read_record(path: &Path, name: &str, left: &mut u64) -> Result<(FileKey, Record), Unusable> {
    let mut bytes = Vec::new();
    let most = MAX_RECORD.min(*left);
    File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| Unusable::Unreadable(error.to_string()))?;
    let size = bytes.len() as u64;
    if size > most {
        return Err(Unusable::TooMuch);
    }
    *left -= size;
    let (key, record) = parse(&bytes)?;
    // A record under another name would be one of another file.
    if record_name(key.0, &key.1) != name {
        return Err(Unusable::Damaged);
    }
    Ok((key, record))
}

fn parse(bytes: &[u8]) -> Result<(FileKey, Record), Unusable> {
    let (first, rest) = split_line(bytes).ok_or(Unusable::Damaged)?;
    let first = std::str::from_utf8(first).map_err(|_| Unusable::Damaged)?;
    let words = first.strip_prefix(MAGIC).ok_or(Unusable::Damaged)?;
    let mut words = words.split_whitespace();
    let version: Option<u32> = words.next().and_then(|word| word.parse().ok());
    match version {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => return Err(Unusable::Newer(newer)),
        _ => return Err(Unusable::Damaged),
    }
    if words.next() != Some(&checksum(rest)) {
        return Err(Unusable::Damaged);
    }
    let (head, text) = split_line(rest).ok_or(Unusable::Damaged)?;
    let Head { kind, path, state } = serde_json::from_slice(head).map_err(|_| Unusable::Damaged)?;
    let record = match state {
        State::Good => Record::Good(text.to_vec()),
        State::NeverGood => Record::NeverGood,
        State::LockedDown => Record::LockedDown,
    };
    Ok(((kind, PathBuf::from(path.into_owned())), record))
}

fn render(kind: Kind, path: &str, record: &Record) -> io::Result<Vec<u8>> {
    let (state, text): (State, &[u8]) = match record {
        Record::Good(text) => (State::Good, text),
        Record::NeverGood => (State::NeverGood, &[]),
        Record::LockedDown => (State::LockedDown, &[]),
    };
    let path = path.into();
    let mut rest = serde_json::to_vec(&Head { kind, path, state })?;
    rest.push(b'\n');
    rest.extend_from_slice(text);
    let mut bytes = format!("{MAGIC} {VERSION} {}\n", checksum(&rest)).into_bytes();
    bytes.append(&mut rest);
    Ok(bytes)
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line, rest.get(1..)?))
}

fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Renames a record that cannot be used, so that it is kept and not read again. Before that, the store
/// is no longer complete: a start that does not find the record must not take it for one that never was.
///
/// # Errors
/// When it cannot be renamed.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    remove_if_there(&path.with_file_name(COMPLETE))?;
    let aside = path.with_extension(SET_ASIDE);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// The bounds of a store.
#[derive(Debug, Clone, Copy)]
struct Limits {
    records: usize,
    total: u64,
}

/// Makes changes. If one of them fails, its record is removed, and the store is not complete until all
/// of a later call succeed; those that failed are returned, with the first error.
pub(super) fn write(directory: &Path, changes: Vec<Change>) -> (Vec<Change>, Option<io::Error>) {
    let limits = Limits {
        records: MAX_RECORDS,
        total: MAX_TOTAL,
    };
    write_within(directory, changes, limits)
}

fn write_within(
    directory: &Path,
    changes: Vec<Change>,
    limits: Limits,
) -> (Vec<Change>, Option<io::Error>) {
    let complete = directory.join(COMPLETE);
    let mut sizes = match begin(directory, &complete) {
        Ok(sizes) => sizes,
        Err(error) => return (changes, Some(error)),
    };
    let mut failed = Vec::new();
    let mut first = None;
    for change in changes {
        if let Err(error) = make(directory, &change, &mut sizes, limits) {
            first.get_or_insert(error);
            forget(directory, &change.0, &mut sizes);
            failed.push(change);
        }
    }
    if failed.is_empty() {
        first = durable_write::replace(&complete, b"").err();
    }
    (failed, first)
}

/// Says that the store is not complete. Returns the sizes of its records.
fn begin(directory: &Path, complete: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    fs::create_dir_all(directory)?;
    remove_if_there(complete)?;
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.path().extension().is_none() {
            sizes.insert(entry.path(), entry.metadata()?.len());
        }
    }
    Ok(sizes)
}

fn make(
    directory: &Path,
    ((kind, path), record): &Change,
    sizes: &mut BTreeMap<PathBuf, u64>,
    limits: Limits,
) -> io::Result<()> {
    let file = directory.join(record_name(*kind, path));
    let Some(record) = record else {
        sizes.remove(&file);
        return remove_if_there(&file);
    };
    let Some(path) = path.to_str() else {
        return Err(io::Error::other("a path that is not UTF-8"));
    };
    let bytes = render(*kind, path, record)?;
    let size = bytes.len() as u64;
    let others = sizes.iter().filter(|(other, _)| **other != file);
    let (count, total) = others.fold((0, 0), |(count, total), (_, size)| {
        (count + 1, total + size)
    });
    if size > MAX_RECORD || count >= limits.records || total + size > limits.total {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    durable_write::replace(&file, &bytes)?;
    sizes.insert(file, size);
    Ok(())
}

/// Removes a record that could not be replaced: what it has is not the last good content any more.
fn forget(directory: &Path, (kind, path): &FileKey, sizes: &mut BTreeMap<PathBuf, u64>) {
    let file = directory.join(record_name(*kind, path));
    // If this fails as well, nothing else can be done about it.
    if remove_if_there(&file).is_ok() {
        sizes.remove(&file);
    }
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the store.
///
/// # Errors
/// When something cannot be removed.
pub(super) fn remove(directory: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
