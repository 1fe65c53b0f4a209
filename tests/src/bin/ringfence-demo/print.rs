//! Output of the demo: headings, lines of text, aligned rows.

use std::sync::atomic::{AtomicU32, Ordering};

/// A numbered heading.
pub(crate) fn heading(text: &str) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    println!("\n{number}. {text}");
}

/// A line of text.
pub(crate) fn line(text: &str) {
    println!("   {text}");
}

/// Rows with every column but the last padded to its widest cell.
pub(crate) fn rows(rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("     {}", cells.join("  ").trim_end());
    }
}
