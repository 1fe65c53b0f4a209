//! Messages about untrusted text: they are not empty, stay short, and cannot deceive a terminal.

use std::fmt::Display;

use ringfence::model::quote::is_deceptive;
use ringfence::source::SourceError;

/// The maximum length of a message; what it quotes is far shorter.
const MAX_CHARACTERS: usize = 1000;
/// The maximum number of findings about one file: those that are shown, and one that counts the
/// rest.
const MAX_FINDINGS: usize = 201;

/// Checks one message.
pub(crate) fn check(message: impl Display) {
    let text = message.to_string();
    assert!(!text.trim().is_empty(), "an empty message");
    assert!(
        text.chars().count() <= MAX_CHARACTERS,
        "a message of {} characters: {text:.200}",
        text.chars().count()
    );
    let deceptive = text.chars().find(|character| is_deceptive(*character));
    assert!(deceptive.is_none(), "{deceptive:?} in a message: {text:?}");
}

/// Checks all findings about one file.
pub(crate) fn check_all(findings: &[SourceError]) {
    assert!(
        findings.len() <= MAX_FINDINGS,
        "{} findings",
        findings.len()
    );
    findings.iter().for_each(check);
}
