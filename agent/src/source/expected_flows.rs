//! Files of expected flows: `[[test]]` tables in TOML, or JSON lines.
//!
//! Both formats have the keys of a policy's own test, `from`, `to`, `port` and `expect`, and an
//! optional `family`. Everything is checked that does not depend on the inventory.

use serde::Deserialize;
use toml::Spanned;

use super::document::{Document, SourceError};
use super::limits::MAX_TOML_POLICY_SIZE;
use super::policy_raw::Text;
use super::value::{self, ValueError};
use crate::model::{PolicyTest, quote::sanitise};

/// A flow and the verdict it should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedFlow {
    /// The flow, the expected verdict, and the line.
    pub test: PolicyTest,
    /// 4 or 6; `None` for every family that both ends have.
    pub family: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    test: Vec<Spanned<RawFlow>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlow {
    from: Text,
    to: Text,
    port: Text,
    expect: Text,
    family: Option<Spanned<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    from: String,
    to: String,
    port: String,
    expect: String,
    family: Option<u8>,
}

/// Parses a TOML file of `[[test]]` tables.
///
/// # Errors
/// All errors of the file.
pub fn parse_toml(file_name: &str, text: &str) -> Result<Vec<ExpectedFlow>, Vec<SourceError>> {
    let mut document =
        Document::new(file_name, text, MAX_TOML_POLICY_SIZE).map_err(|error| vec![error])?;
    let raw: RawFile = document.read().map_err(|error| vec![error])?;
    let flows = raw.test.iter();
    let flows = flows.filter_map(|raw| flow(&mut document, raw)).collect();
    document.close()?;
    Ok(flows)
}

fn flow(document: &mut Document<'_>, raw: &Spanned<RawFlow>) -> Option<ExpectedFlow> {
    let line = document.line(raw.span().start);
    let raw = raw.get_ref();
    let from = document.accept(raw.from.span(), value::test_end(raw.from.get_ref()));
    let to = document.accept(raw.to.span(), value::test_end(raw.to.get_ref()));
    let port = document.accept(raw.port.span(), value::test_port(raw.port.get_ref()));
    let expect = document.accept(raw.expect.span(), value::expectation(raw.expect.get_ref()));
    let family = match &raw.family {
        Some(number) => Some(document.accept(number.span(), family(*number.get_ref()))?),
        None => None,
    };
    let test = PolicyTest {
        from: from?,
        to: to?,
        port: port?,
        expect: expect?,
        line,
    };
    Some(ExpectedFlow { test, family })
}

fn family(number: u8) -> Result<u8, String> {
    if matches!(number, 4 | 6) {
        Ok(number)
    } else {
        Err(format!("family {number} does not exist: expected 4 or 6"))
    }
}

/// Parses one JSON line.
///
/// # Errors
/// The first error of the line.
pub fn parse_line(file_name: &str, line: u32, text: &[u8]) -> Result<ExpectedFlow, SourceError> {
    let refuse =
        |message: String| SourceError::at_line(&file_name.into(), line, sanitise(&message));
    let raw: RawLine = serde_json::from_slice(text)
        .map_err(|error| refuse(format!("not an expected flow: {error}")))?;
    let parsed = || -> Result<PolicyTest, ValueError> {
        Ok(PolicyTest {
            from: value::test_end(&raw.from)?,
            to: value::test_end(&raw.to)?,
            port: value::test_port(&raw.port)?,
            expect: value::expectation(&raw.expect)?,
            line,
        })
    };
    let test = parsed().map_err(|error| refuse(error.to_string()))?;
    let family = raw.family.map(family).transpose().map_err(refuse)?;
    Ok(ExpectedFlow { test, family })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "\n[[test]]\nfrom = \"shop/a\"\nto = \"10.0.0.1\"\nport = \"tcp/80\"\n\
                        expect = \"deny\"\nfamily = 4\n";
    const LINE: &str =
        r#"{"from":"shop/a","to":"10.0.0.1","port":"tcp/80","expect":"deny","family":4}"#;

    #[test]
    fn both_formats_parse_to_the_same_flow() {
        let flows = parse_toml("f.toml", TOML).unwrap();
        assert_eq!(flows, [parse_line("f.jsonl", 2, LINE.as_bytes()).unwrap()]);
    }

    #[test]
    fn an_error_names_the_line_and_what_was_expected() {
        for (good, bad, reason) in [
            ("deny", "drop", "allow or deny"),
            ("tcp/80", "tcp/80-81", "one port"),
            ("shop/a", "shop", "neither a workload"),
            ("10.0.0.1", "10.0.0", "neither a workload"),
            ("from", "source", "source"),
        ] {
            let errors = parse_toml("f.toml", &TOML.replace(good, bad)).unwrap_err();
            assert!(
                errors[0].line > 1 && errors[0].message.contains(reason),
                "{errors:?}"
            );
            let line = LINE.replace(good, bad);
            let error = parse_line("f.jsonl", 7, line.as_bytes()).unwrap_err();
            assert_eq!(error.line, 7);
            assert!(error.message.contains(reason), "{error}");
        }
        let six = TOML.replace("family = 4", "family = 5");
        assert!(parse_toml("f.toml", &six).is_err());
    }
}
