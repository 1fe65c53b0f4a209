//! Messages about hostile text: they say something, stay short, and cannot deceive a terminal.

use std::fmt::Display;

use ringfence::model::quote::is_deceptive;
use ringfence::source::SourceError;

/// The most characters of a message; what it quotes is far shorter.
const LONGEST: usize = 1000;
/// The most findings about one file: those that are shown, and one that counts the others.
const MOST: usize = 201;

/// Checks one message.
pub(crate) fn check(message: impl Display) {
    let text = message.to_string();
    assert!(!text.trim().is_empty(), "a message that says nothing");
    assert!(
        text.chars().count() <= LONGEST,
        "a message of {} characters: {text:.200}",
        text.chars().count()
    );
    let deceptive = text.chars().find(|character| is_deceptive(*character));
    assert!(deceptive.is_none(), "{deceptive:?} in a message: {text:?}");
}

/// Checks what is said about one file.
pub(crate) fn check_all(findings: &[SourceError]) {
    assert!(findings.len() <= MOST, "{} findings", findings.len());
    findings.iter().for_each(check);
}
