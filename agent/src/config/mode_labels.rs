//! `mode-labels` and `mode-floor` in `[kubernetes]`: what labels of namespaces may do to their modes.
//!
//! What results from them is decided in `app`.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{Reader, Text};
use crate::model::{LabelSelector, Labels, ModeName, NamespaceName};

/// What the label [`MODE_LABEL`] of a namespace may do to its mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ModeLabels {
    /// Only raise it above what this file says.
    #[default]
    Raise,
    /// Take the place of the default, which may be stricter.
    Set,
    /// Nothing.
    Off,
}

/// The label of a namespace with its mode.
pub const MODE_LABEL: &str = "ringfence.dev/mode";

/// A mode that labels cannot lower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeFloor {
    /// The mode, `enforce` or `lockdown`.
    pub mode: ModeName,
    /// Namespaces that have at least this mode.
    pub namespaces: BTreeSet<NamespaceName>,
    /// So have the namespaces with such labels.
    pub selector: Option<LabelSelector>,
}

impl ModeFloor {
    /// Whether it is one of a namespace with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|it| it.matches(labels))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModeFloor {
    mode: Text,
    #[serde(default)]
    namespaces: Vec<Text>,
    selector: Option<Text>,
}

pub(super) fn labels(reader: &mut Reader<'_, '_>, raw: Option<Text>) -> ModeLabels {
    let Some(text) = raw else {
        return ModeLabels::default();
    };
    match text.get_ref().as_str() {
        "raise" => ModeLabels::Raise,
        "set" => ModeLabels::Set,
        "off" => ModeLabels::Off,
        _ => {
            let message = "unknown mode-labels: expected \"raise\", \"set\" or \"off\"";
            reader.document.refuse(text.span(), message);
            ModeLabels::default()
        }
    }
}

pub(super) fn floors(
    reader: &mut Reader<'_, '_>,
    raw: Vec<Spanned<RawModeFloor>>,
) -> Vec<ModeFloor> {
    let floors = raw.into_iter();
    floors
        .filter_map(|it| floor(reader, it.span(), it.into_inner()))
        .collect()
}

fn floor(reader: &mut Reader<'_, '_>, span: Range<usize>, raw: RawModeFloor) -> Option<ModeFloor> {
    let mode_span = raw.mode.span();
    let mode = reader.parsed(Some(raw.mode))?;
    if mode == ModeName::Observe {
        let message = "a floor of observe is none: expected enforce or lockdown";
        reader.document.refuse(mode_span, message);
    }
    if raw.namespaces.is_empty() && raw.selector.is_none() {
        let message = "a mode-floor for no namespace: expected namespaces, a selector, or both";
        reader.document.refuse(span, message);
    }
    let names = raw.namespaces.into_iter();
    let namespaces = names.filter_map(|name| reader.parsed(Some(name))).collect();
    Some(ModeFloor {
        mode,
        namespaces,
        selector: reader.parsed(raw.selector),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Kubernetes};

    fn parse(text: &str) -> Result<Kubernetes, String> {
        let text = format!("[kubernetes]\n{text}\n");
        let config = Config::parse("r.toml", &text, Path::new("/"));
        let errors = |errors: Vec<crate::source::SourceError>| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            lines.join("\n")
        };
        config.map(|it| it.kubernetes.unwrap()).map_err(errors)
    }

    #[test]
    fn floors_and_the_meaning_of_labels_are_read() {
        let none = parse("").unwrap();
        assert_eq!(
            (none.mode_labels, none.mode_floors),
            (ModeLabels::Raise, vec![])
        );
        for (text, labels) in [
            ("raise", ModeLabels::Raise),
            ("set", ModeLabels::Set),
            ("off", ModeLabels::Off),
        ] {
            let read = parse(&format!("mode-labels = \"{text}\"")).unwrap();
            assert_eq!(read.mode_labels, labels);
        }
        let read = parse(
            "mode-floor = [\n{ mode = \"enforce\", namespaces = [\"shop\", \"pay\"] },\n\
             { mode = \"lockdown\", selector = \"team in (a, b)\" },\n]",
        );
        let [named, selected] = <[ModeFloor; 2]>::try_from(read.unwrap().mode_floors).unwrap();
        assert_eq!(named.mode, ModeName::Enforce);
        let names: Vec<_> = named.namespaces.iter().map(NamespaceName::as_str).collect();
        assert_eq!(names, ["pay", "shop"]);
        assert_eq!(selected.mode, ModeName::Lockdown);
        let labels = |team| Labels::from_pairs([("team", team)]).unwrap();
        assert!(selected.selects(&labels("b")) && !selected.selects(&labels("c")));
        assert!(!named.selects(&labels("b")));
    }

    #[test]
    fn what_no_floor_can_be_is_refused_with_its_place() {
        for (text, error) in [
            (
                "mode-labels = \"lower\"",
                "r.toml:2:15: unknown mode-labels",
            ),
            (
                "mode-floor = [{ mode = \"observe\", namespaces = [\"a\"] }]",
                "r.toml:2:24: a floor of observe is none",
            ),
            (
                "mode-floor = [{ mode = \"enforce\" }]",
                "r.toml:2:15: a mode-floor for no namespace",
            ),
            (
                "mode-floor = [{ mode = \"enforce\", namespaces = [\"A\"] }]",
                "r.toml:2:49: ",
            ),
            (
                "mode-floor = [{ mode = \"enforce\", selector = \"a=,(\" }]",
                "r.toml:2:46: bad label selector",
            ),
            (
                "mode-floor = [{ mode = \"strict\", namespaces = [\"a\"] }]",
                "r.toml:2:24: unknown mode",
            ),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.starts_with(error), "{text}: {refused}");
        }
    }
}
