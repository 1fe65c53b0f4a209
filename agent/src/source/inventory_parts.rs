//! Parses a long inventory in parts: in parallel, and with the memory of one part freed before the
//! next needs it.
//!
//! Invariants: every part except the first begins with a line that begins with a workload's header.
//! Therefore parts that are valid one by one are valid together, with the same content. If that
//! line were inside a value, the part before it would end in the middle of that value and be
//! invalid. If a part is invalid or has warnings, this parser gives up and reports nothing: the
//! caller then parses the file as a whole and reports the findings with their places.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::inventory_toml::{InventoryFragment, parse_sequentially};
use super::limits::MAX_FILE_SIZE;

/// The minimum size in bytes of every part except the last.
const MIN_PART: usize = 64 * 1024;
/// A part may begin at the second character of this text.
const HEADER: &str = "\n[[workload]]";
/// The maximum number of parsing threads.
const MAX_THREADS: usize = 4;

/// The content of a file of more than one part; `None` if it has to be parsed as a whole.
pub(super) fn parse(file_name: &str, text: &str) -> Option<InventoryFragment> {
    if text.len() > MAX_FILE_SIZE {
        return None;
    }
    parse_with(file_name, text, MIN_PART)
}

fn parse_with(file_name: &str, text: &str, min_part: usize) -> Option<InventoryFragment> {
    let parts = split(text, min_part)?;
    let next = AtomicUsize::new(0);
    let read = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else {
                return Some(done);
            };
            match parse_sequentially(file_name, part) {
                Ok(fragment) if fragment.warnings.is_empty() => done.push((index, fragment)),
                _ => {
                    // The other threads need not parse the rest.
                    next.store(parts.len(), Ordering::Relaxed);
                    return None;
                }
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(MAX_THREADS).min(parts.len());
    let mut done = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, read);
        // If a thread cannot be started, the others parse its parts.
        let others: Vec<_> = (1..threads).map_while(|index| spawn(index).ok()).collect();
        let mut done = read();
        for other in others {
            done = done.zip(other.join().ok()?).map(|(mut done, more)| {
                done.extend(more);
                done
            });
        }
        done
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    let mut whole = InventoryFragment::default();
    let mut lines = 0;
    for ((_, fragment), part) in done.into_iter().zip(parts) {
        whole.append(fragment, lines);
        lines += u32::try_from(part.matches('\n').count()).ok()?;
    }
    Some(whole)
}

/// The parts of a text; `None` if it is too short to have several, or if it has keys before its
/// first header: a later header must not append to an array that such a key defines.
fn split(text: &str, min_part: usize) -> Option<Vec<&str>> {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    if !first.starts_with('[') {
        return None;
    }
    let mut parts = Vec::new();
    let mut begin = 0;
    for (end, _) in text.match_indices(HEADER) {
        if end + 1 - begin >= min_part {
            parts.push(text.get(begin..=end)?);
            begin = end + 1;
        }
    }
    parts.push(text.get(begin..)?);
    (parts.len() > 1).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the text in parts, and checks that the result equals that of the whole.
    fn parse_in_parts(text: &str) -> Option<InventoryFragment> {
        let parts = parse_with("i.toml", text, 1);
        if let Some(parts) = &parts {
            assert_eq!(
                parse_sequentially("i.toml", text).as_ref(),
                Ok(parts),
                "{text}"
            );
        }
        parts
    }

    const HEAD: &str = "# cluster\n\n[[namespace]]\nname = \"x\"\n";
    const A: &str = "[[workload]]\nname = \"a\"\nnamespace = \"x\"\n";
    const B: &str = "[[workload]]\nname = \"b\"\nnamespace = \"x\"\naddresses = [\"10.0.0.1\"]\n";
    const NODE: &str = "[[node]]\nname = \"n\"\n";

    #[test]
    fn parsing_in_parts_equals_parsing_the_whole() {
        let labels = "[workload.labels]\napp = \"web\"\n";
        for text in [
            format!("{HEAD}{A}{B}{NODE}"),
            format!("{A}{labels}{NODE}{B}{labels}"),
            format!("{HEAD}\n\n{A}# [[workload]]\n{B}{HEAD}"),
            format!("{A}{A}{A}"),
            format!("{HEAD}{A}{B}").replace('\n', "\r\n"),
        ] {
            let parts = parse_in_parts(&text).unwrap();
            assert!(!parts.workloads.is_empty());
        }
        let lines = parse_in_parts(&format!("{HEAD}{A}{B}")).unwrap();
        let lines: Vec<u32> = lines.workloads.iter().map(|w| w.line).collect();
        assert_eq!(lines, [5, 8]);
    }

    #[test]
    fn a_file_with_an_invalid_part_is_left_to_the_sequential_parser() {
        let inline = "workload = [{ name = \"c\", namespace = \"x\" }]\n";
        let within = "ports = { \"a\" = \"\"\"\n[[workload]]\n\"\"\" }\n";
        for text in [
            String::new(),
            A.to_owned(),
            format!("{inline}{A}{B}"),
            format!("# {HEAD}\n{inline}{A}{B}"),
            format!("{A}{within}{B}"),
            format!("{A}addresses = [\n{B}"),
            format!("{A}colour = 1\n{B}"),
            format!("{A}{B}[node]\nname = \"n\"\n"),
            format!("{NODE}{A}{B}[node.more]\nname = \"n\"\n"),
            format!("{A}{B}[workload]\n"),
        ] {
            assert_eq!(parse_in_parts(&text), None, "{text}");
        }
    }

    #[test]
    fn a_file_beyond_the_size_limit_is_not_parsed_in_parts() {
        let text = A.repeat(MAX_FILE_SIZE / A.len() + 1);
        assert_eq!(parse("i.toml", &text), None);
    }
}
