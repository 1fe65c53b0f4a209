//! The order of Debian package versions, as `dpkg --compare-versions` defines it.
//!
//! A version is compared in parts of non-digits and of digits. Non-digits are in the order `~`, the
//! end, letters, everything else; digits are numbers. The source is deb-version(7). Epochs are
//! compared first.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::str::Chars;

/// Compares two versions.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = epoch(left);
    let (right_epoch, right) = epoch(right);
    let (left_upstream, left_revision) = revision(left);
    let (right_upstream, right_revision) = revision(right);
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// Upstream version and revision, which begins after the last hyphen.
fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.chars().peekable(), right.chars().peekable());
    while left.peek().is_some() || right.peek().is_some() {
        let order = compare_text(&mut left, &mut right)
            .then_with(|| number(&mut left).cmp(&number(&mut right)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Compares up to the next digit of each.
fn compare_text(left: &mut Peekable<Chars<'_>>, right: &mut Peekable<Chars<'_>>) -> Ordering {
    loop {
        let is_text = |character: &char| !character.is_ascii_digit();
        let (one, other) = (left.next_if(is_text), right.next_if(is_text));
        let order = weight(one).cmp(&weight(other));
        if order.is_ne() || (one.is_none() && other.is_none()) {
            return order;
        }
    }
}

fn weight(character: Option<char>) -> u32 {
    match character {
        Some('~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => 2 + u32::from(letter),
        Some(other) => 1_000 + u32::from(other),
    }
}

fn number(characters: &mut Peekable<Chars<'_>>) -> u64 {
    let mut number = 0_u64;
    while let Some(digit) = characters.next_if(char::is_ascii_digit) {
        number = number
            .saturating_mul(10)
            .saturating_add(u64::from(digit.to_digit(10).unwrap_or(0)));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_dpkg() {
        let rising = [
            "6.1.99-1",
            "6.1.176-1",
            "6.1.192-3",
            "6.1.192-10",
            "6.12~rc1-1",
            "6.12-1",
            "6.12.9-1",
            "6.12.100-1~bpo12+1",
            "6.12.100-1",
            "6.12.117-1~deb12u1",
            "6.12.117-1",
            "6.12.117-1+b1",
            "1:4.0-1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            assert_eq!(compare(pair[0], pair[0]), Ordering::Equal);
        }
    }
}
