//! A long inventory in parts: read side by side, and each gone before the next needs its memory.
//!
//! Invariants: a part but the first begins with a line that begins with the header of a workload, so
//! parts that are good one by one are good together and say the same. Were that line within a value,
//! the part before it would break off in the middle of that value, which is not good. Of a file of which
//! a part is not good, or has something to warn of, nothing is said here: whoever reads it as a whole
//! tells what is wrong, and where.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::inventory_toml::{InventoryFragment, parse_sequentially};
use super::limits::MAX_FILE_SIZE;

/// The least bytes of a part but the last.
const PART: usize = 64 * 1024;
/// Where a part may begin: with the second character.
const HEADER: &str = "\n[[workload]]";
/// The most threads that read.
const MOST_THREADS: usize = 4;

/// What a file of more than one part says; `None` if it has to be read as a whole.
pub(super) fn parse(file_name: &str, text: &str) -> Option<InventoryFragment> {
    if text.len() > MAX_FILE_SIZE {
        return None;
    }
    parse_with(file_name, text, PART)
}

fn parse_with(file_name: &str, text: &str, least: usize) -> Option<InventoryFragment> {
    let parts = split(text, least)?;
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
                    // Nobody needs the rest.
                    next.store(parts.len(), Ordering::Relaxed);
                    return None;
                }
            }
        }
    };
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(MOST_THREADS).min(parts.len());
    let mut done = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, read);
        // Whoever is missing leaves more to the others.
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

/// The parts of a text; `None` if it is too short to have several, or has keys before its first
/// header: what they say of an array, later headers must not add to.
fn split(text: &str, least: usize) -> Option<Vec<&str>> {
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
    if !first.starts_with('[') {
        return None;
    }
    let mut parts = Vec::new();
    let mut begin = 0;
    for (end, _) in text.match_indices(HEADER) {
        if end + 1 - begin >= least {
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

    /// Whatever parts say must be what the whole says.
    fn agree(text: &str) -> Option<InventoryFragment> {
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
    fn parts_say_what_the_whole_says() {
        let labels = "[workload.labels]\napp = \"web\"\n";
        for text in [
            format!("{HEAD}{A}{B}{NODE}"),
            format!("{A}{labels}{NODE}{B}{labels}"),
            format!("{HEAD}\n\n{A}# [[workload]]\n{B}{HEAD}"),
            format!("{A}{A}{A}"),
            format!("{HEAD}{A}{B}").replace('\n', "\r\n"),
        ] {
            let parts = agree(&text).unwrap();
            assert!(!parts.workloads.is_empty());
        }
        let lines = agree(&format!("{HEAD}{A}{B}")).unwrap();
        let lines: Vec<u32> = lines.workloads.iter().map(|w| w.line).collect();
        assert_eq!(lines, [5, 8]);
    }

    #[test]
    fn what_is_not_good_part_by_part_is_left_to_the_whole() {
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
            assert_eq!(agree(&text), None, "{text}");
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_in_parts() {
        let text = A.repeat(MAX_FILE_SIZE / A.len() + 1);
        assert_eq!(parse("i.toml", &text), None);
    }
}
