//! Durations as users write them: `90s`, `5m`, `2h`, `30d`, `1h30m`.
//!
//! Invariants: whole seconds, above zero, within the API's limit. A day is 24 hours.

use std::str::FromStr;

/// A duration in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Duration(u32);

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number with a unit of s, m, h or d, for example 5m or 30d")]
pub(super) struct DurationError;

impl Duration {
    pub(super) fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut total = 0u32;
        let mut rest = text;
        while !rest.is_empty() {
            let unit_at = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or(DurationError)?;
            let (number, tail) = rest.split_at(unit_at);
            let mut characters = tail.chars();
            let unit = match characters.next() {
                Some('s') => 1,
                Some('m') => 60,
                Some('h') => 3600,
                Some('d') => 86_400,
                _ => return Err(DurationError),
            };
            let number: u32 = number.parse().map_err(|_| DurationError)?;
            let span = number.checked_mul(unit).ok_or(DurationError)?;
            total = total.checked_add(span).ok_or(DurationError)?;
            rest = characters.as_str();
        }
        if total == 0 {
            Err(DurationError)
        } else {
            Ok(Self(total))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("30d", 2_592_000),
            ("1h30m", 5400),
        ] {
            assert_eq!(text.parse(), Ok(Duration(seconds)), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "5x",
            "-5m",
            "5 m",
            "0s",
            "99999999999s",
            "50000d",
            "5µ",
            "1.5h",
        ] {
            assert_eq!(text.parse::<Duration>(), Err(DurationError), "{text}");
        }
    }
}
