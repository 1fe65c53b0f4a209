//! Tables for people, and the escaping of untrusted text for a terminal.
//!
//! Invariants: a cell never contains a control, bidirectional or zero-width character, so it can
//! neither move the cursor nor reorder its line; columns are aligned by characters. Programs use
//! JSON.

use crate::model::quote::is_deceptive;

/// Makes text safe for a terminal: one line, with no hidden characters.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if is_deceptive(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    out
}

/// A table with a heading.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|name| (*name).to_owned()).collect()],
        }
    }

    /// Adds a row; cells are escaped, and an empty cell is shown as `-`.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                escape(&cell)
            }
        };
        self.rows.push(cells.map(shown).into());
    }

    /// The table as text; every line ends with a line feed.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<_> = cells
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            out.push_str(line.join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(&["NAME", "MODE"]);
        table.row(["naïve".into(), "observe".into()]);
        table.row([String::new(), "enforce".into()]);
        assert_eq!(
            table.render(),
            "NAME   MODE\nnaïve  observe\n-      enforce\n"
        );
    }

    #[test]
    fn cells_are_escaped() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\u{1b}[2Jb\nc\u{202e}d\u{9b}e\u{200b}".into()]);
        assert_eq!(
            table.render(),
            "NAME\na\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}e\\u{200b}\n"
        );
    }
}
