//! Findings as a SARIF 2.1.0 log, which code scanning services show next to the source lines.
//!
//! Invariants: every lint is listed as a rule, with or without findings; paths are URI references,
//! relative if they were given so, and then resolve against the repository's root.

use serde_json::{Value, json};

use super::check::{Level, Reported};
use crate::policy::LintCode;
use crate::source::WarningKind;

/// The rule id for errors in a file, which are not lint findings.
pub(super) const INVALID_ID: &str = "invalid";

/// The rules other than lints.
const OTHERS: [(&str, &str, &str, Level); 2] = [
    (
        INVALID_ID,
        "a file that cannot be read as policies or inventory",
        "correct the file: the message says what was expected",
        Level::Error,
    ),
    (
        WarningKind::More.code(),
        "a file with more warnings than are shown",
        WarningKind::More.remedy(),
        Level::Warning,
    ),
];

/// The log of one run.
pub(super) fn log(reported: &[Reported]) -> Value {
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "ringfence",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": reported.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

fn rules() -> Vec<Value> {
    let lints = LintCode::ALL.iter();
    let lints = lints.map(|code| rule(code.name(), code.about(), code.remedy(), Level::Warning));
    let others = OTHERS.iter();
    let others = others.map(|(id, about, remedy, level)| rule(id, about, remedy, *level));
    lints.chain(others).collect()
}

fn rule(id: &str, about: &str, remedy: &str, level: Level) -> Value {
    json!({
        "id": id,
        "shortDescription": { "text": about },
        "fullDescription": { "text": about },
        "help": { "text": remedy },
        "defaultConfiguration": { "level": level },
    })
}

fn result(reported: &Reported) -> Value {
    let lints = LintCode::ALL.iter();
    let index = lints
        .take_while(|code| code.name() != reported.code)
        .count();
    let mut text = reported.message.clone();
    if let Some(remedy) = reported.remedy {
        text = format!("{text} — {remedy}");
    }
    let mut place = json!({ "artifactLocation": { "uri": uri(&reported.file) } });
    if let (true, Some(place)) = (reported.line > 0, place.as_object_mut()) {
        place.insert("region".to_owned(), json!({ "startLine": reported.line }));
    }
    json!({
        "ruleId": reported.code,
        "ruleIndex": index,
        "level": reported.level,
        "message": { "text": text },
        "locations": [{ "physicalLocation": place }],
    })
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri("./policies/a b.toml"), "policies/a%20b.toml");
        assert_eq!(uri("c:d%.toml"), "c%3Ad%25.toml");
        assert_eq!(uri("/etc/ä"), "file:///etc/%C3%A4");
    }

    #[test]
    fn an_error_about_a_whole_file_has_no_line() {
        let reported = Reported {
            file: "gone.toml".to_owned(),
            line: 0,
            code: INVALID_ID,
            level: Level::Error,
            message: "cannot be read".to_owned(),
            remedy: None,
        };
        let log = log(&[reported]);
        let run = &log["runs"][0];
        let result = &run["results"][0];
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["region"], Value::Null);
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], INVALID_ID);
    }
}
