//! `[kubernetes]`: the API server that workloads and policies come from.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::mode_labels::{self, ModeFloor, ModeLabels, RawModeFloor};
use super::{Reader, Text, cluster_ranges};
use crate::model::NodeName;
use crate::source::SourceError;
use crate::source::document::Document;
use crate::source::kubernetes_api::PodRanges;

/// The environment variable with the node's name if the file does not say it, as a pod gets it by
/// `fieldRef: spec.nodeName`.
const NODE_NAME: &str = "NODE_NAME";

/// How an API server is reached, and which of its nodes this one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// `kubeconfig`: the file that says how to reach it. Default: the service account of the pod that the
    /// agent runs in.
    pub kubeconfig: Option<PathBuf>,
    /// `node-name`: the name of this node's Node object. Default: the environment variable `NODE_NAME`.
    pub node_name: Option<NodeName>,
    /// `pod-ranges`: which ranges of pods are the cluster's, besides those of Services. Default `off`.
    pub pod_ranges: PodRanges,
    /// `mode-labels`: what the labels of namespaces may do to modes. Default `raise`.
    pub mode_labels: ModeLabels,
    /// `mode-floor`: the modes that labels cannot lower. Default none.
    pub mode_floors: Vec<ModeFloor>,
}

/// The table as it is in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawKubernetes {
    kubeconfig: Option<Text>,
    node_name: Option<Text>,
    pod_ranges: Option<Spanned<RawPodRanges>>,
    mode_labels: Option<Text>,
    #[serde(default)]
    mode_floor: Vec<Spanned<RawModeFloor>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPodRanges {
    Which(String),
    Listed(Vec<String>),
}

fn pod_ranges(document: &mut Document<'_>, raw: Spanned<RawPodRanges>) -> PodRanges {
    let span = raw.span();
    match raw.into_inner() {
        RawPodRanges::Which(which) if which == "off" => PodRanges::Off,
        RawPodRanges::Which(which) if which == "node-spec" => PodRanges::NodeSpec,
        RawPodRanges::Which(_) => {
            document.refuse(
                span,
                "unknown ranges of pods: expected \"off\", \"node-spec\" or a list of prefixes",
            );
            PodRanges::Off
        }
        RawPodRanges::Listed(listed) => {
            let listed = listed.into_iter().map(|text| (text, span.clone()));
            PodRanges::Listed(cluster_ranges::read(document, listed))
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_, '_>, raw: RawKubernetes) -> Kubernetes {
    Kubernetes {
        kubeconfig: raw.kubeconfig.map(|text| reader.path(&text)),
        node_name: reader.parsed(raw.node_name),
        pod_ranges: (raw.pod_ranges)
            .map(|raw| pod_ranges(reader.document, raw))
            .unwrap_or_default(),
        mode_labels: mode_labels::labels(reader, raw.mode_labels),
        mode_floors: mode_labels::floors(reader, raw.mode_floor),
    }
}

impl Kubernetes {
    /// Takes the node's name from the environment if the file does not say it.
    pub(super) fn complete(
        &mut self,
        file: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), SourceError> {
        if self.node_name.is_some() {
            return Ok(());
        }
        let Some(text) = variable(NODE_NAME) else {
            let message = format!(
                "[kubernetes] without node-name: expected it, or the environment variable {NODE_NAME}"
            );
            return Err(SourceError::whole_file(file, message));
        };
        let name = NodeName::new(&text).map_err(|error| {
            SourceError::whole_file(file, format!("environment variable {NODE_NAME}: {error}"))
        })?;
        self.node_name = Some(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_node_if_the_file_does_not() {
        let name = |text: &str| NodeName::new(text).unwrap();
        let of = |node_name: Option<NodeName>, variable: Option<&str>| {
            let mut config = Kubernetes {
                kubeconfig: None,
                node_name,
                pod_ranges: PodRanges::Off,
                mode_labels: ModeLabels::default(),
                mode_floors: Vec::new(),
            };
            let completed = config.complete("r.toml", |asked| {
                assert_eq!(asked, "NODE_NAME");
                variable.map(str::to_owned)
            });
            completed.map(|()| config.node_name.unwrap())
        };
        assert_eq!(of(Some(name("a")), Some("b")), Ok(name("a")));
        assert_eq!(of(None, Some("b")), Ok(name("b")));
        assert_eq!(
            of(None, None).unwrap_err().to_string(),
            "r.toml: [kubernetes] without node-name: expected it, or the environment variable NODE_NAME"
        );
        let bad = of(None, Some("B\u{1b}")).unwrap_err().to_string();
        assert!(
            bad.starts_with("r.toml: environment variable NODE_NAME: \"B\\u{1b}\" is not"),
            "{bad}"
        );
    }
}
