//! The text of one file: deserializes it, and converts byte offsets to lines and columns.
//!
//! Every finding names file, line and column, what was wrong, and what was expected. Text of the
//! file is escaped and truncated when it is part of a message.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use super::limits::MAX_FINDINGS;
use crate::model::quote::sanitise;

/// The maximum number of characters of one message.
const MAX_MESSAGE: usize = 600;

/// A finding about a source file: an error, or a warning if `warning_kind` is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct SourceError {
    /// The file, under the name it was opened with.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 for a finding about the whole file.
    pub line: u32,
    /// The column in characters, counted from 1; 0 for a finding about the whole file.
    pub column: u32,
    /// What was wrong and what was expected.
    pub message: String,
    /// The kind of warning; `None` for an error.
    pub warning_kind: Option<WarningKind>,
}

/// Kinds of warnings: valid, but possibly not what the author meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WarningKind {
    /// An address range with host bits set.
    HostBits,
    /// Rules of a direction that the policy does not apply to.
    IgnoredRules,
    /// A NetworkPolicy that selects every pod because it has no `podSelector`.
    NoPodSelector,
    /// A rule with a peer that this version does not support.
    FailsClosed,
    /// More warnings than are reported one by one.
    More,
}

impl WarningKind {
    /// The stable name of the warning.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HostBits => "host-bits",
            Self::IgnoredRules => "ignored-rules",
            Self::NoPodSelector => "no-pod-selector",
            Self::FailsClosed => "fails-closed",
            Self::More => "more-findings",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::HostBits => "write the intended range",
            Self::IgnoredRules => "name the direction in policyTypes, or remove its rules",
            Self::NoPodSelector => "write podSelector: {} to select every pod",
            Self::FailsClosed => "write peers that this version supports",
            Self::More => "fix the findings that are shown",
        }
    }
}

impl SourceError {
    /// An error about a whole file.
    pub fn whole_file(file: &str, message: impl fmt::Display) -> Self {
        Self {
            file: Arc::from(file),
            line: 0,
            column: 0,
            message: message.to_string(),
            warning_kind: None,
        }
    }

    /// An error at a line.
    pub(crate) fn at_line(file: &Arc<str>, line: u32, message: impl fmt::Display) -> Self {
        Self {
            file: file.clone(),
            line,
            column: 1,
            message: message.to_string(),
            warning_kind: None,
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        let file = sanitise(file);
        if *line == 0 {
            write!(out, "{file}: {message}")
        } else {
            write!(out, "{file}:{line}:{column}: {message}")
        }
    }
}

/// A document that is being parsed, and the findings about it so far.
pub(crate) struct Document<'a> {
    file: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
    errors: Vec<SourceError>,
    more_errors: usize,
    warnings: Vec<SourceError>,
    more_warnings: usize,
}

impl<'a> Document<'a> {
    /// Opens a document of at most `limit` bytes.
    pub(crate) fn new(file: &str, text: &'a str, limit: usize) -> Result<Self, SourceError> {
        if text.len() > limit {
            return Err(too_large(file, limit));
        }
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(ends.map(|(offset, _)| offset + 1))
            .collect();
        let (errors, warnings) = (Vec::new(), Vec::new());
        Ok(Self {
            file: Arc::from(file),
            text,
            line_starts,
            errors,
            more_errors: 0,
            warnings,
            more_warnings: 0,
        })
    }

    /// The file's name, to be shared by the origins of the values parsed from it.
    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Deserializes the whole document into one value.
    pub(crate) fn read<T: Deserialize<'a>>(&self) -> Result<T, SourceError> {
        toml::from_str(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            self.finding(span, &sanitise(error.message()))
        })
    }

    /// The line that contains a byte offset.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        let before = self.line_starts.partition_point(|&start| start <= offset);
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    fn finding(&self, span: Range<usize>, message: &str) -> SourceError {
        let before = self
            .line_starts
            .partition_point(|&start| start <= span.start);
        let start = self
            .line_starts
            .get(before.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let head = self.text.get(start..span.start).unwrap_or_default();
        let column = u32::try_from(head.chars().count() + 1).unwrap_or(u32::MAX);
        SourceError {
            file: self.file.clone(),
            line: self.line(span.start),
            column,
            message: truncate(message),
            warning_kind: None,
        }
    }

    /// Records an error at a span.
    pub(crate) fn refuse(&mut self, span: Range<usize>, message: impl fmt::Display) {
        if self.errors.len() < MAX_FINDINGS {
            let error = self.finding(span, &message.to_string());
            self.errors.push(error);
        } else {
            self.more_errors += 1;
        }
    }

    /// Records a warning at a span.
    pub(crate) fn warn(
        &mut self,
        span: Range<usize>,
        warning_kind: WarningKind,
        message: impl fmt::Display,
    ) {
        if self.warnings.len() < MAX_FINDINGS {
            let mut warning = self.finding(span, &message.to_string());
            warning.warning_kind = Some(warning_kind);
            self.warnings.push(warning);
        } else {
            self.more_warnings += 1;
        }
    }

    /// The number of errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.len() + self.more_errors
    }

    /// All errors and warnings.
    pub(crate) fn into_findings(self) -> (Vec<SourceError>, Vec<SourceError>) {
        (self.errors, self.warnings)
    }

    /// The value, or `None` after recording the error at the span.
    pub(crate) fn accept<T, E: fmt::Display>(
        &mut self,
        span: Range<usize>,
        outcome: Result<T, E>,
    ) -> Option<T> {
        outcome.map_err(|error| self.refuse(span, error)).ok()
    }

    /// The warnings if there was no error, otherwise the errors.
    pub(crate) fn close(mut self) -> Result<Vec<SourceError>, Vec<SourceError>> {
        if self.more_errors > 0 {
            let message = format!("{} more errors are not shown", self.more_errors);
            self.errors
                .push(SourceError::whole_file(&self.file, message));
        }
        if self.more_warnings > 0 {
            let message = format!("{} more warnings are not shown", self.more_warnings);
            let mut more = SourceError::whole_file(&self.file, message);
            more.warning_kind = Some(WarningKind::More);
            self.warnings.push(more);
        }
        if self.errors.is_empty() {
            Ok(self.warnings)
        } else {
            Err(self.errors)
        }
    }
}

/// The error for a file that exceeds its size limit.
pub(crate) fn too_large(file: &str, limit: usize) -> SourceError {
    let kib = limit / 1024;
    let message = format!("the file is too large: expected at most {kib} KiB, split it");
    SourceError::whole_file(file, message)
}

/// Decodes a file's bytes as UTF-8.
pub(crate) fn decode<'a>(
    file: &str,
    bytes: &'a [u8],
    limit: usize,
) -> Result<&'a str, SourceError> {
    if bytes.len() > limit {
        return Err(too_large(file, limit));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let lines = good.iter().filter(|&&byte| byte == b'\n').count();
        let last = good
            .rsplit(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let column = String::from_utf8_lossy(last).chars().count() + 1;
        SourceError {
            file: Arc::from(file),
            line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            message: "a byte that is not UTF-8: expected UTF-8 text".to_owned(),
            warning_kind: None,
        }
    })
}

fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_offsets_are_converted_to_lines_and_columns() {
        let document = Document::new("f", "ab\nä=x\n", 100).unwrap();
        let at = |offset: usize| {
            let finding = document.finding(offset..offset, "");
            (finding.line, finding.column)
        };
        assert_eq!(
            [at(0), at(2), at(3), at(5), at(6)],
            [(1, 1), (1, 3), (2, 1), (2, 2), (2, 3)]
        );
        assert_eq!(at(8), (3, 1));
    }

    #[test]
    fn a_syntax_error_has_line_and_column_and_no_control_characters() {
        let document = Document::new("f.toml", "a = 1\nb = \n", 100).unwrap();
        let error = document.read::<toml::Table>().unwrap_err();
        assert_eq!((error.line, error.column), (2, 5), "{error}");
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn invalid_utf8_and_large_files_are_refused() {
        assert_eq!(
            decode("f", b"a\nb\xff", 100).unwrap_err().to_string(),
            "f:2:2: a byte that is not UTF-8: expected UTF-8 text"
        );
        assert_eq!(
            decode("f", &[b' '; 2049], 2048).unwrap_err().to_string(),
            "f: the file is too large: expected at most 2 KiB, split it"
        );
    }
}
