//! The file of what an agent kept of the API's objects: a line for each, between a head and an end.
//!
//! Invariants: it is used as a whole or not at all, so that no policy is missed; a file that is cut off, changed,
//! too large, of another version or of another node is not used; no line is read beyond [`Limits::line`]. What is too much
//! is left out when it is written: pods of other nodes, and a policy's content, which locks its namespace down.

use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::kept::{Kept, kind_named};
use super::object::{Converted, Key, convert};
use crate::model::{NodeName, quote};
use crate::ordmap::Map;

/// The version of the format.
const VERSION: u32 = 1;
const MAGIC: &str = "kubernetes-objects";

/// How much is stored.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of a line.
    pub line: usize,
    /// The most bytes of all lines.
    pub total: usize,
    /// The most objects.
    pub objects: usize,
}

/// The limits of an agent: some 200,000 pods. The API server accepts no object of more than 1.5 MiB (etcd).
pub const LIMITS: Limits = Limits {
    line: 256 * 1024,
    total: 64 * 1024 * 1024,
    objects: 250_000,
};

/// What an earlier agent kept.
#[derive(Debug, Default)]
pub struct Stored {
    /// When it was stored, in seconds since 1970.
    pub at: i64,
    /// The objects.
    pub objects: Vec<Converted>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Another agent wrote it.
    #[error("it has format version {0}, and this agent reads {VERSION}")]
    Version(u32),
    /// It is another node's.
    #[error("it is the node {}'s", quote(.0))]
    Node(String),
    /// It is not what an agent writes.
    #[error("it is damaged")]
    Damaged,
    /// It has more than an agent writes.
    #[error("it has more than an agent writes")]
    TooMuch,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    ringfence: String,
    version: u32,
    node: String,
    at: i64,
}

/// As [`Head`], of any version.
#[derive(Deserialize)]
struct AnyHead {
    ringfence: String,
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    kind: &'a str,
    object: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    objects: usize,
    sha256: String,
}

/// Reads a file of this node.
///
/// # Errors
/// Why it cannot be used.
pub fn read(from: impl BufRead, node: &NodeName, limits: Limits) -> Result<Stored, Unusable> {
    let mut lines = Lines {
        from: from.take(limits.total as u64 + 1),
        longest: limits.line,
        line: Vec::new(),
    };
    let mut digest = Sha256::new();
    let head = lines.next()?.ok_or(Unusable::Damaged)?;
    let any: AnyHead = parsed(head)?;
    if any.ringfence != MAGIC {
        return Err(Unusable::Damaged);
    }
    if any.version != VERSION {
        return Err(Unusable::Version(any.version));
    }
    let read: Head = parsed(head)?;
    if read.node != node.as_str() {
        return Err(Unusable::Node(read.node));
    }
    digest.update(head);
    let mut stored = Stored {
        at: read.at,
        objects: Vec::new(),
    };
    while let Some(line) = lines.next()? {
        if line.starts_with(br#"{"kind":"#) {
            digest.update(line);
            if stored.objects.len() >= limits.objects {
                return Err(Unusable::TooMuch);
            }
            stored.objects.push(object(line, node)?);
            continue;
        }
        let End { objects, sha256 } = parsed(line)?;
        let is_whole = objects == stored.objects.len() && sha256 == hex(digest);
        if !is_whole || lines.next()?.is_some() {
            return Err(Unusable::Damaged);
        }
        return Ok(stored);
    }
    Err(Unusable::Damaged)
}

fn object(line: &[u8], node: &NodeName) -> Result<Converted, Unusable> {
    let Line { kind, mut object } = parsed(line)?;
    let kind = kind_named(kind).ok_or(Unusable::Damaged)?;
    convert(kind, node, &mut object).map_err(|_| Unusable::Damaged)
}

fn parsed<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, Unusable> {
    serde_json::from_slice(line).map_err(|_| Unusable::Damaged)
}

/// The lines of a file, each with its end.
struct Lines<R> {
    from: io::Take<R>,
    longest: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<&[u8]>, Unusable> {
        self.line.clear();
        let from = &mut self.from;
        let mut from = from.take(self.longest as u64 + 1);
        from.read_until(b'\n', &mut self.line)?;
        if self.line.len() > self.longest || (self.from.limit() == 0) {
            return Err(Unusable::TooMuch);
        }
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&self.line)),
            Some(_) => Err(Unusable::Damaged),
        }
    }
}

/// Writes a file of this node. Returns how many objects are in it by their name alone, or not at all.
///
/// # Errors
/// When it cannot be written, or if more than pods of other nodes would have to be left out.
pub fn write(
    to: &mut impl Write,
    kept: &Map<Key, Kept>,
    (node, at): (&NodeName, i64),
    limits: Limits,
) -> io::Result<usize> {
    let head = Head {
        ringfence: MAGIC.to_owned(),
        version: VERSION,
        node: node.as_str().to_owned(),
        at,
    };
    let mut digest = Sha256::new();
    let (mut written, mut objects, mut left_out) = (0, 0, 0);
    let mut put = |to: &mut dyn Write, line: &str| {
        digest.update(line.as_bytes());
        to.write_all(line.as_bytes())
    };
    let line = format!("{}\n", serde_json::to_string(&head)?);
    written += line.len();
    put(to, &line)?;
    // For the end.
    let total = limits.total.saturating_sub(1024);
    let here = kept.iter().filter(|(_, it)| !it.is_elsewhere());
    let elsewhere = kept.iter().filter(|(_, it)| it.is_elsewhere());
    for (key, it) in here.chain(elsewhere) {
        let kind = key.kind().name();
        let whole = |object: &str| format!("{{\"kind\":\"{kind}\",\"object\":{object}}}\n");
        let mut line = Some(whole(&it.json(key, node)));
        if line.as_ref().is_some_and(|line| line.len() > limits.line) {
            left_out += 1;
            line = it.stub(key).map(|stub| whole(&stub));
        }
        let Some(line) = line else {
            continue;
        };
        if objects >= limits.objects || written + line.len() > total {
            if !it.is_elsewhere() {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            left_out += 1;
            continue;
        }
        written += line.len();
        objects += 1;
        put(to, &line)?;
    }
    let sha256 = hex(digest);
    let end = serde_json::to_string(&End { objects, sha256 })?;
    writeln!(to, "{end}")?;
    Ok(left_out)
}

fn hex(digest: Sha256) -> String {
    let digest = digest.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
