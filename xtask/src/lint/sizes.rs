//! File sizes.
//!
//! More than [`MAXIMUM`] lines is a finding, more than [`RECOMMENDED`] a note.

use super::Finding;
use super::source::SourceFile;

const RECOMMENDED: usize = 300;
const MAXIMUM: usize = 500;

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.lines > MAXIMUM)
        .map(too_long)
        .collect()
}

/// Files that are longer than recommended.
pub(crate) fn notes(files: &[SourceFile]) -> Vec<String> {
    let long = files
        .iter()
        .filter(|file| (RECOMMENDED + 1..=MAXIMUM).contains(&file.lines));
    long.map(|file| {
        format!(
            "{}: {} lines; {RECOMMENDED} are recommended",
            file.path, file.lines
        )
    })
    .collect()
}

fn too_long(file: &SourceFile) -> Finding {
    let message = format!("more than {MAXIMUM} lines: split it by subject");
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
