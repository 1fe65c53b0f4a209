//! Replaces a file so that after a crash, a power cut included, it has its old or its new content.
//!
//! Invariant: if it fails, the file has its old content, and no part of the new one uses space.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::Path,
};

/// The extension of content that is not in its place yet.
pub(super) const STAGED: &str = "new";

/// Replaces a file, or creates it.
///
/// # Errors
/// When the content cannot be written, for example because the disk is full.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// Replaces a file, or creates it, with what this writes.
///
/// # Errors
/// When it fails, or the content cannot be written.
pub(super) fn replace_with(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let staged = path.with_extension(STAGED);
    let outcome = stage(&staged, content).and_then(|()| fs::rename(&staged, path));
    if outcome.is_err() {
        // Nothing else can be done about it: the next replacement overwrites it.
        let _left = fs::remove_file(&staged);
        return outcome;
    }
    // Its name is not durable until its directory is.
    path.parent()
        .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn stage(
    staged: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(staged)?);
    content(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("modes.json");
        for content in ["first", "2"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_changes_nothing_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("modes.json");
        replace(&path, b"before").unwrap();
        symlink("/dev/full", dir.path().join("modes.new")).unwrap();
        let error = replace(&path, b"after").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
