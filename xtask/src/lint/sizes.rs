//! File sizes: a file is a room, and should be a pleasant one.
//!
//! More than [`MOST`] lines is a finding, more than [`PLEASANT`] a note. Nothing else is counted.

use super::Finding;
use super::source::SourceFile;

const PLEASANT: usize = 300;
const MOST: usize = 500;

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.lines > MOST)
        .map(too_long)
        .collect()
}

/// Files that are allowed but on the long side.
pub(crate) fn notes(files: &[SourceFile]) -> Vec<String> {
    let long = files
        .iter()
        .filter(|file| (PLEASANT + 1..=MOST).contains(&file.lines));
    long.map(|file| {
        format!(
            "{}: {} lines; {PLEASANT} is pleasant",
            file.path, file.lines
        )
    })
    .collect()
}

fn too_long(file: &SourceFile) -> Finding {
    let message = format!("more than {MOST} lines: split it by what its parts are for");
    Finding::at(file, file.lines, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize) -> SourceFile {
        SourceFile::new("agent/src/x.rs", &"x\n".repeat(lines))
    }

    #[test]
    fn limits_are_inclusive() {
        assert!(check(&[file(500)]).is_empty());
        assert_eq!(check(&[file(501)]).len(), 1);
        assert!(notes(&[file(300)]).is_empty());
        assert_eq!(notes(&[file(301), file(500)]).len(), 2);
    }
}
