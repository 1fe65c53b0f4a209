//! Durations as written in cases: `1500ms`, `10s`, `2m`, `1h`, `30d`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Parses a whole number and a unit.
pub(super) fn parse(text: &str) -> Result<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let expected = || format!("{text:?} is no duration: expected for example 1500ms or 10s");
    let number: u64 = number.parse().with_context(expected)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => bail!(expected()),
    };
    let milliseconds = number.checked_mul(factor).with_context(expected)?;
    Ok(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_number_and_a_unit() {
        assert_eq!(parse("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse("3600s").unwrap(), parse("1h").unwrap());
        for bad in ["", "10", "s", "-1s", "1.5s", "1 s", "99999999999999999999s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
