//! A source with switches in the places of its seeded bugs.
//!
//! Invariants: with no bug chosen the code is what it was; with one chosen, its replacements and no
//! others take effect. A bug inside the code of another one is put into the right half of that switch. Places come sorted as `check` leaves them: outer ones first, none crossing.

use super::check::Place;
use super::expressions::Kind;

/// `text` with all `places` rewritten; `path` says by which name it knows the switch.
pub(super) fn switched(path: &str, text: &str, places: &[Place]) -> String {
    let switch = if path.starts_with("common/") {
        "crate::mutant!"
    } else {
        "ringfence_common::mutant!"
    };
    let mut rest = places;
    let mut out = String::with_capacity(text.len() * 2);
    part(switch, text, 0, text.len(), &mut rest, &mut out);
    out
}

/// Appends the bytes from `start` to `end` with all places in them, which it takes from `rest`.
fn part(switch: &str, text: &str, start: usize, end: usize, rest: &mut &[Place], out: &mut String) {
    let mut at = start;
    while let Some((place, after)) = rest.split_first()
        && place.bytes.end <= end
    {
        *rest = after;
        out.push_str(text.get(at..place.bytes.start).unwrap_or_default());
        at = place.bytes.end;
        let Some(name) = &place.name else {
            out.push_str(&place.replacement);
            continue;
        };
        if place.kind == Kind::Field {
            out.push_str(text.get(place.bytes.clone()).unwrap_or_default());
            out.push_str(": ");
        }
        out.push_str(&format!("{switch}({name}, "));
        part(switch, text, place.bytes.start, place.bytes.end, rest, out);
        out.push_str(&format!(", {})", place.replacement));
        if place.kind == Kind::Statement {
            out.push(';');
        }
    }
    out.push_str(text.get(at..end).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, piece: &str, name: Option<&str>, replacement: &str) -> Place {
        let start = text.find(piece).unwrap();
        Place {
            bytes: start..start + piece.len(),
            kind: Kind::Plain,
            name: name.map(String::from),
            replacement: replacement.to_owned(),
        }
    }

    #[test]
    fn each_place_becomes_a_switch() {
        let text = "if a == b && c {}";
        let places = [
            place(text, "a == b", Some("one"), "true"),
            place(text, "c", Some("two"), "d"),
        ];
        assert_eq!(
            switched("ebpf/src/x.rs", text, &places),
            "if ringfence_common::mutant!(one, a == b, true) && ringfence_common::mutant!(two, c, d) {}"
        );
    }

    #[test]
    fn a_place_in_another_is_on_its_right_side() {
        let text = "f(g(now))";
        let places = [
            place(text, "g(now)", Some("outer"), "0"),
            place(text, "now", Some("inner"), "then"),
        ];
        assert_eq!(
            switched("common/src/x.rs", text, &places),
            "f(crate::mutant!(outer, g(crate::mutant!(inner, now, then)), 0))"
        );
        let twice = [
            place(text, "now", Some("one"), "1"),
            place(text, "now", Some("two"), "2"),
        ];
        assert_eq!(
            switched("common/src/x.rs", text, &twice),
            "f(g(crate::mutant!(one, crate::mutant!(two, now, 2), 1)))"
        );
    }

    #[test]
    fn a_field_is_named_before_its_switch() {
        let text = "S { a, b }";
        let mut places = [place(text, "b", Some("bug"), "0")];
        places[0].kind = Kind::Field;
        assert_eq!(
            switched("common/src/x.rs", text, &places),
            "S { a, b: crate::mutant!(bug, b, 0) }"
        );
    }

    #[test]
    fn statements_get_their_semicolon_and_setup_no_switch() {
        let text = "a(); if b {} c();";
        let mut places = [
            place(text, "a();", None, "a(); z();"),
            place(text, "if b {}", Some("bug"), "()"),
        ];
        places[1].kind = Kind::Statement;
        assert_eq!(
            switched("common/src/x.rs", text, &places),
            "a(); z(); crate::mutant!(bug, if b {}, ()); c();"
        );
    }
}
