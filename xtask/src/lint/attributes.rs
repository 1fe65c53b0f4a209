//! Lints may be silenced only with a reason.
//!
//! Covers `allow` and `expect`, plain or inside `cfg_attr`, on items and on whole files. Whether
//! the reason is good is left to the reviewer.

use super::Finding;
use super::source::{self, SourceFile, Token};

pub(crate) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut rest = file.tokens.as_slice();
    while !rest.is_empty() {
        let attribute = source::attribute(rest).unwrap_or_default();
        findings.extend(unreasoned(attribute).map(|(level, line)| {
            Finding::at(file, line, format!("`{level}` without `reason = \"…\"`"))
        }));
        rest = rest.get(attribute.len().max(1)..).unwrap_or_default();
    }
    findings
}

/// The `allow(…)` and `expect(…)` in an attribute that give no reason.
fn unreasoned(attribute: &[Token]) -> impl Iterator<Item = (&str, usize)> {
    attribute.iter().enumerate().filter_map(|(index, token)| {
        let arguments = attribute.get(index + 1..)?;
        if !(token.is("allow") || token.is("expect")) || !arguments.first()?.is("(") {
            return None;
        }
        let arguments = arguments.get(..source::balanced(arguments, "(", ")")?)?;
        let reasoned = arguments
            .windows(2)
            .any(|pair| matches!(pair, [name, equals] if name.is("reason") && equals.is("=")));
        (!reasoned).then_some((token.text.as_str(), token.line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&[SourceFile::new("agent/src/x.rs", text)]).len()
    }

    #[test]
    fn a_reason_is_required_everywhere() {
        assert_eq!(findings("#[allow(dead_code)] fn f() {}"), 1);
        assert_eq!(findings("#![expect(\n    dead_code,\n)]"), 1);
        assert_eq!(findings("#[cfg_attr(test, allow(dead_code))] fn f() {}"), 1);
        assert_eq!(
            findings("#[allow(a)]\n#[allow(b, reason = \"why\")]\n#[expect(c)] x"),
            2
        );
    }

    #[test]
    fn reasons_and_lookalikes_pass() {
        assert_eq!(
            findings("#[allow(dead_code, reason = \"read by the kernel\")] fn f() {}"),
            0
        );
        assert_eq!(
            findings("// #[allow(dead_code)]\nresult.expect(message)"),
            0
        );
        assert_eq!(findings("#[doc = \"allow(x)\"] struct S;"), 0);
    }
}
