//! Text as lower-case words, with identifiers taken apart.
//!
//! `ct_store`, `CtStore` and `CT_STORE4` all contain the words "ct" and "store". A word continues
//! the one before it if both are part of one phrase: only spaces, a hyphen, an underscore or a
//! change of case separate them, or one line break with the marks that begin a comment line.

/// One word.
#[derive(Debug, PartialEq)]
pub(super) struct Word {
    /// In lower case.
    pub(super) text: String,
    pub(super) line: usize,
    /// Whether it belongs to the same phrase as the word before it.
    pub(super) continues: bool,
}

/// Every word of `text`, in order.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut gap = String::new();
    let mut word = String::new();
    let mut line = 1;
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_alphabetic() {
            let next_is_lower = characters.peek().is_some_and(|next| next.is_lowercase());
            if !word.is_empty() && starts_word(before, c, next_is_lower) {
                push(&mut words, &mut word, &mut gap, line);
            }
            word.push(c);
        } else {
            if !word.is_empty() {
                push(&mut words, &mut word, &mut gap, line);
            }
            gap.push(c);
            line += usize::from(c == '\n');
        }
        before = Some(c);
    }
    if !word.is_empty() {
        push(&mut words, &mut word, &mut gap, line);
    }
    words
}

/// Whether `c` begins a new word of an identifier: `ctStore` or the S of `CTStore`.
fn starts_word(before: Option<char>, c: char, next_is_lower: bool) -> bool {
    let after_lower = before.is_some_and(char::is_lowercase);
    let after_upper = before.is_some_and(char::is_uppercase);
    c.is_uppercase() && (after_lower || (after_upper && next_is_lower))
}

fn push(words: &mut Vec<Word>, word: &mut String, gap: &mut String, line: usize) {
    words.push(Word {
        text: word.to_lowercase(),
        line,
        continues: !words.is_empty() && joins(gap),
    });
    word.clear();
    gap.clear();
}

/// Whether `gap` joins the words on both sides to one phrase.
fn joins(gap: &str) -> bool {
    let breaks = gap.matches('\n').count();
    let begins_line = |c: char| breaks == 1 && "/!#*>\\".contains(c);
    breaks <= 1
        && gap
            .chars()
            .all(|c| c.is_whitespace() || c == '-' || c == '_' || begins_line(c))
}

/// The lines that contain `name`, not as part of a longer name.
pub(super) fn lines_with(text: &str, name: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    if !text.contains(name) {
        return lines;
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    for (index, line) in text.lines().enumerate() {
        let mut hits = line.match_indices(name);
        let is_whole = hits.any(|(start, found)| {
            let before = line.get(..start).and_then(|head| head.chars().next_back());
            let after = line.get(start + found.len()..);
            let after = after.and_then(|tail| tail.chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        });
        if is_whole {
            lines.push(index + 1);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn identifiers_are_taken_apart() {
        let expected = ["ct", "store"];
        for name in ["ct_store", "CtStore", "CT_STORE4", "ct-store", "CTStore"] {
            assert_eq!(texts(name), expected, "{name}");
            assert!(words(name).last().unwrap().continues, "{name}");
        }
    }

    #[test]
    fn phrases_end_at_punctuation_and_paragraphs() {
        let continues = |text: &str| words(text).last().unwrap().continues;
        assert!(continues("a  b") && continues("a\nb") && continues("/// a\n    /// b"));
        assert!(continues("# a\n# b") && continues("\"a \\\n   b\""));
        assert!(!continues("a. b") && !continues("a, b") && !continues("a(b"));
        assert!(!continues("a\n\nb") && !continues("//! a\n//!\n//! b"));
    }

    #[test]
    fn words_know_their_line() {
        let lines: Vec<usize> = words("a b\n\n// c\n")
            .iter()
            .map(|word| word.line)
            .collect();
        assert_eq!(lines, [1, 1, 3]);
    }

    #[test]
    fn names_are_found_whole() {
        let text = "x.rs\nax.rs x.rsb\n`x.rs`, and x.rs";
        assert_eq!(lines_with(text, "x.rs"), [1, 3]);
    }
}
