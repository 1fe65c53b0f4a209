//! Formats a time as RFC 3339 in UTC.
//!
//! Formatting only; times are parsed elsewhere.

use crate::model::WallTime;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// `2026-12-01T00:00:00Z`, with a fraction if there is one.
pub(super) fn text(time: WallTime) -> String {
    let (seconds, nanoseconds) = (time.0.div_euclid(SECOND), time.0.rem_euclid(SECOND));
    let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = if nanoseconds == 0 {
        String::new()
    } else {
        let digits = format!(".{nanoseconds:09}");
        digits.trim_end_matches('0').to_owned()
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The civil date of a day since 1970-01-01: eras of 400 years, years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_formatted_as_rfc_3339() {
        for (nanoseconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00Z"),
            (
                1_798_761_599 * SECOND + 500_000_000,
                "2026-12-31T23:59:59.5Z",
            ),
            (4_107_542_400 * SECOND, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(text(WallTime(nanoseconds)), wanted);
        }
    }
}
