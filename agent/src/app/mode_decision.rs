//! The mode of one namespace, from everything that is said about it.
//!
//! Pure. Invariants: a floor is never undercut by a label or by the configuration, only by `mode set` on this
//! node, whose administrator could as well stop the agent; while labels may only raise, no label lowers
//! anything; a label never lowers what the configuration says of the namespace by its name.

use crate::{config::ModeLabels, model::ModeName, server::view::ModeSource};

/// What is said about the mode of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// `[modes] default`.
    pub(super) default: ModeName,
    /// `[modes]`, by name.
    pub(super) by_name: Option<ModeName>,
    /// The strictest of its floors.
    pub(super) floor: Option<ModeName>,
    /// Its label.
    pub(super) label: Option<ModeName>,
    /// `mode set` on this node.
    pub(super) here: Option<ModeName>,
}

/// The mode, and what it comes from: of several that say the same, the one that is least easily changed.
pub(super) fn decide(said: &Said, labels: ModeLabels) -> (ModeName, ModeSource) {
    if let Some(here) = said.here {
        return (here, ModeSource::Set);
    }
    let config = said.by_name.unwrap_or(said.default);
    let label = said.label.filter(|_| labels != ModeLabels::Off);
    // A label that may do so takes the place of the default, and of nothing else.
    let is_replaced = labels == ModeLabels::Set && label.is_some() && said.by_name.is_none();
    let all = [
        (Some(config).filter(|_| !is_replaced), ModeSource::Config),
        (said.floor, ModeSource::Floor),
        (label, ModeSource::Label),
    ];
    let all = all
        .into_iter()
        .filter_map(|(mode, source)| Some((mode?, source)));
    // The last of several maxima is the first in the list.
    let strictest = all.rev().max_by_key(|(mode, _)| *mode);
    strictest.unwrap_or((config, ModeSource::Config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModeLabels::{Off, Raise, Set};

    /// A mode by its first letter, `-` for none.
    fn mode(letter: char) -> Option<ModeName> {
        match letter {
            'o' => Some(ModeName::Observe),
            'e' => Some(ModeName::Enforce),
            'l' => Some(ModeName::Lockdown),
            '-' => None,
            other => panic!("{other}"),
        }
    }

    fn decided(text: &str, labels: ModeLabels) -> (ModeName, ModeSource) {
        let letters: Vec<char> = text.chars().collect();
        let [default, by_name, floor, label, here] = letters[..] else {
            panic!("{text}");
        };
        let said = Said {
            default: mode(default).unwrap(),
            by_name: mode(by_name),
            floor: mode(floor),
            label: mode(label),
            here: mode(here),
        };
        decide(&said, labels)
    }

    #[test]
    fn the_mode_of_a_namespace() {
        use ModeSource as From;
        // Default, by name, floor, label, set here; the mode with each meaning of labels.
        for (said, raise, set, off) in [
            // Without labels all meanings are the same.
            (
                "o----",
                ('o', From::Config),
                ('o', From::Config),
                ('o', From::Config),
            ),
            (
                "e----",
                ('e', From::Config),
                ('e', From::Config),
                ('e', From::Config),
            ),
            (
                "eo---",
                ('o', From::Config),
                ('o', From::Config),
                ('o', From::Config),
            ),
            (
                "o-e--",
                ('e', From::Floor),
                ('e', From::Floor),
                ('e', From::Floor),
            ),
            (
                "ooe--",
                ('e', From::Floor),
                ('e', From::Floor),
                ('e', From::Floor),
            ),
            (
                "l-e--",
                ('l', From::Config),
                ('l', From::Config),
                ('l', From::Config),
            ),
            // A label raises.
            (
                "o--e-",
                ('e', From::Label),
                ('e', From::Label),
                ('o', From::Config),
            ),
            (
                "oo-e-",
                ('e', From::Label),
                ('e', From::Label),
                ('o', From::Config),
            ),
            (
                "oe-l-",
                ('l', From::Label),
                ('l', From::Label),
                ('e', From::Config),
            ),
            (
                "o-el-",
                ('l', From::Label),
                ('l', From::Label),
                ('e', From::Floor),
            ),
            // It lowers the default if it may, and nothing else.
            (
                "e--o-",
                ('e', From::Config),
                ('o', From::Label),
                ('e', From::Config),
            ),
            (
                "l--e-",
                ('l', From::Config),
                ('e', From::Label),
                ('l', From::Config),
            ),
            (
                "oe-o-",
                ('e', From::Config),
                ('e', From::Config),
                ('e', From::Config),
            ),
            (
                "l-eo-",
                ('l', From::Config),
                ('e', From::Floor),
                ('l', From::Config),
            ),
            (
                "o-eo-",
                ('e', From::Floor),
                ('e', From::Floor),
                ('e', From::Floor),
            ),
            // What is said twice comes from what is changed less easily.
            (
                "e-ee-",
                ('e', From::Config),
                ('e', From::Floor),
                ('e', From::Config),
            ),
            (
                "o-ee-",
                ('e', From::Floor),
                ('e', From::Floor),
                ('e', From::Floor),
            ),
            (
                "e--e-",
                ('e', From::Config),
                ('e', From::Label),
                ('e', From::Config),
            ),
            // What was set on this node holds.
            (
                "eello",
                ('o', From::Set),
                ('o', From::Set),
                ('o', From::Set),
            ),
            (
                "o---l",
                ('l', From::Set),
                ('l', From::Set),
                ('l', From::Set),
            ),
        ] {
            for (labels, (letter, source)) in [(Raise, raise), (Set, set), (Off, off)] {
                let expected = (mode(letter).unwrap(), source);
                assert_eq!(decided(said, labels), expected, "{said} {labels:?}");
            }
        }
    }

    #[test]
    fn no_label_lowers_what_it_may_not() {
        let all = ['-', 'o', 'e', 'l'];
        let mut cases = 0;
        for default in ['o', 'e', 'l'] {
            for (by_name, floor, label) in all.iter().flat_map(|by_name| {
                let rest = all
                    .iter()
                    .flat_map(|floor| all.iter().map(move |it| (floor, it)));
                rest.map(move |(floor, label)| (by_name, floor, label))
            }) {
                let of = |label: char, labels| {
                    decided(&format!("{default}{by_name}{floor}{label}-"), labels).0
                };
                let without = of('-', Raise);
                assert!(of(*label, Raise) >= without);
                assert_eq!(of(*label, Off), without);
                assert!(Some(of(*label, Set)) >= mode(*floor));
                assert!(Some(of(*label, Set)) >= mode(*by_name));
                cases += 1;
            }
        }
        assert_eq!(cases, 3 * 64);
    }
}
