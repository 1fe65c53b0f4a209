//! The flow log: JSON lines in a file that is rotated by size.
//!
//! Invariants: the file has whole lines only; on a full disk or without its directory, records are
//! lost and counted, and the agent continues; after an error, the next batch reopens the file. The
//! number of rotated files is bounded. Blocking; call it from a thread that may block.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::flow::FlowRecord;
use super::hubble;

/// Writes flow records to a file.
#[derive(Debug)]
pub struct FlowLog {
    path: PathBuf,
    limit: u64,
    kept: u32,
    file: Option<File>,
    size: u64,
    buffer: Vec<u8>,
    lost: u64,
    last_error: Option<String>,
}

impl FlowLog {
    /// A log at `path` that is rotated before it grows beyond `limit` bytes; `kept` is the number
    /// of rotated files to keep, of which `path.1` is the newest.
    #[must_use]
    pub fn new(path: &Path, limit: u64, kept: u32) -> Self {
        Self {
            path: path.to_owned(),
            limit,
            kept,
            file: None,
            size: 0,
            buffer: Vec::new(),
            lost: 0,
            last_error: None,
        }
    }

    /// Writes and flushes a batch; records that cannot be written are counted as lost.
    pub fn append(&mut self, batch: &[Arc<FlowRecord>]) {
        // Open first: the size of the existing file counts for rotation.
        if let Err(error) = self.open() {
            self.lost += batch.len() as u64;
            return self.fail(&error);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut pending = 0;
        for record in batch {
            let start = buffer.len();
            hubble::write_line(&mut buffer, record);
            if self.size + length(&buffer) > self.limit && self.size + start as u64 > 0 {
                self.flush(buffer.get(..start).unwrap_or_default(), pending);
                self.rotate();
                buffer.drain(..start);
                pending = 0;
            }
            pending += 1;
        }
        self.flush(&buffer, pending);
        buffer.clear();
        self.buffer = buffer;
    }

    /// Records that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The last error; `None` once a batch has been written since.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn flush(&mut self, bytes: &[u8], records: u64) {
        if bytes.is_empty() {
            return;
        }
        match self.write(bytes) {
            Ok(()) => self.last_error = None,
            Err(error) => {
                self.lost += records;
                self.fail(&error);
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.open()?;
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if let Err(error) = file.write_all(bytes) {
            // Cut off a partially written line.
            let _ = file.set_len(self.size);
            return Err(error);
        }
        self.size += length(bytes);
        Ok(())
    }

    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        if self.kept == 0 {
            return self.checked(fs::remove_file(&self.path));
        }
        for number in (1..self.kept).rev() {
            self.checked(fs::rename(self.numbered(number), self.numbered(number + 1)));
        }
        self.checked(fs::rename(&self.path, self.numbered(1)));
    }

    fn checked(&self, moved: io::Result<()>) {
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("flow log {}: cannot rotate: {error}", self.path.display());
            }
            _ => {}
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }

    fn fail(&mut self, error: &io::Error) {
        self.file = None;
        let message = format!("flow log {}: {error}", self.path.display());
        if self.last_error.as_ref() != Some(&message) {
            tracing::warn!("{message}");
        }
        self.last_error = Some(message);
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::flow::tests::{event, record};

    fn lines(path: &Path) -> usize {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        text.lines().count()
    }

    fn batch(count: usize) -> Vec<Arc<FlowRecord>> {
        (0..count).map(|_| Arc::new(record(&event()))).collect()
    }

    fn line_length() -> u64 {
        let mut line = Vec::new();
        hubble::write_line(&mut line, &record(&event()));
        length(&line)
    }

    #[test]
    fn the_log_rotates_within_a_batch_and_keeps_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.log");
        let mut log = FlowLog::new(&path, 2 * line_length(), 3);
        log.append(&batch(9));
        assert_eq!(lines(&path), 1);
        for number in 1..=3 {
            assert_eq!(lines(&log.numbered(number)), 2, "{number}");
        }
        assert!(!log.numbered(4).exists());
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn an_existing_file_is_continued_and_its_size_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.log");
        FlowLog::new(&path, 3 * line_length(), 3).append(&batch(2));
        FlowLog::new(&path, 3 * line_length(), 3).append(&batch(1));
        assert_eq!(lines(&path), 3);
        let mut log = FlowLog::new(&path, 3 * line_length(), 3);
        log.append(&batch(1));
        assert_eq!((lines(&path), lines(&log.numbered(1))), (1, 3));
    }

    #[test]
    fn a_line_above_the_limit_is_written_and_no_rotated_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.log");
        let mut log = FlowLog::new(&path, 10, 0);
        log.append(&batch(2));
        assert_eq!(lines(&path), 1);
        assert!(!log.numbered(1).exists());
    }

    #[test]
    fn lost_records_are_counted_and_the_log_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let mut log = FlowLog::new(&missing.join("flows.log"), 1 << 20, 3);
        log.append(&batch(2));
        assert_eq!(log.lost(), 2);
        assert!(log.last_error().unwrap().contains("flows.log"));
        fs::create_dir(&missing).unwrap();
        log.append(&batch(1));
        assert_eq!((log.lost(), log.last_error()), (2, None));
        assert_eq!(lines(&missing.join("flows.log")), 1);
    }
}
