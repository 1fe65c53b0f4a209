//! Resolves a plain YAML scalar to null, a boolean, a number or text.
//!
//! Follows `kubectl`, which reads YAML 1.1: `yes`, `no`, `on` and `off` are booleans. Numbers that
//! YAML versions read differently (`010`, `0x10`, `1_000`) are [`Value::Number`], which no field
//! accepts, so that a policy cannot mean a different port here than in Kubernetes.

use std::borrow::Cow;

use super::node::Value;

/// Resolves a scalar that has neither quotes nor a tag.
pub(super) fn plain(text: Cow<'_, str>) -> Value<'_> {
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !looks_numeric(&text) {
        return Value::Text(text);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
    if decimal && (digits.len() == 1 || !digits.starts_with('0')) {
        return match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Number(text),
        };
    }
    if decimal || is_other_number(digits) {
        return Value::Number(text);
    }
    Value::Text(text)
}

fn looks_numeric(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = digits.strip_prefix('.').unwrap_or(digits);
    digits.starts_with(|first: char| first.is_ascii_digit())
        || matches!(digits, "inf" | "Inf" | "INF" | "nan" | "NaN" | "NAN") && digits != text
}

/// True for floats, other bases and grouped digits.
fn is_other_number(digits: &str) -> bool {
    let grouped: String = digits.chars().filter(|&digit| digit != '_').collect();
    let based = |prefix: &str, base: u32| {
        grouped
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|digit| digit.is_digit(base)))
    };
    based("0x", 16)
        || based("0o", 8)
        || based("0b", 2)
        || grouped.parse::<f64>().is_ok()
        || matches!(
            digits.trim_start_matches('.'),
            "inf" | "Inf" | "INF" | "nan" | "NaN" | "NAN"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_resolved_like_kubectl_does() {
        let read = |text: &'static str| plain(Cow::Borrowed(text));
        for text in ["", "~", "null"] {
            assert_eq!(read(text), Value::Null, "{text}");
        }
        for (text, value) in [("true", true), ("yes", true), ("off", false)] {
            assert_eq!(read(text), Value::Bool(value), "{text}");
        }
        for (text, value) in [("0", 0), ("80", 80), ("-1", -1), ("65536", 65536)] {
            assert_eq!(read(text), Value::Integer(value), "{text}");
        }
        for text in [
            "010",
            "0x50",
            "0o17",
            "0b1",
            "1_000",
            "1.5",
            "1e3",
            ".5",
            ".inf",
            "-.inf",
            ".nan",
            "99999999999999999999",
        ] {
            assert_eq!(read(text), Value::Number(text.into()), "{text}");
        }
        for text in [
            "a",
            "10.0.0.0/8",
            "10.0.0.1",
            "2027-02-01",
            "fd00::1",
            "inf",
            "nan",
            "tcp/80",
            "y",
            "1.2.3",
            "0x",
            "-",
            "80-90",
            "::/0",
        ] {
            assert_eq!(read(text), Value::Text(text.into()), "{text}");
        }
    }
}
