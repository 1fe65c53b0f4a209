//! The command line.

use std::path::PathBuf;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};

use crate::extent::Extent;

/// What Ringfence costs on this machine.
///
/// Prints tables; with `-o json` figures and nothing else on stdout. A figure is named
/// group/metric/variant, e.g. wire/established-udp4/enforce@10000.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Options {
    /// Measure only these: beginnings of group/metric, or of metric alone.
    #[arg(long, value_delimiter = ',')]
    metrics: Vec<String>,
    /// Measure only these variants: beginnings of their names.
    #[arg(long, value_delimiter = ',')]
    variants: Vec<String>,
    /// Rounds on the wire.
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Numbers of peers to measure at.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    pub(crate) peers: Vec<u32>,
    /// Begin the random order with this number instead of a new one.
    #[arg(long)]
    seed: Option<u64>,
    /// What to write to stdout.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Compare with the goals; fail if one is missed.
    #[arg(long)]
    pub(crate) check: bool,
    /// Measure less often, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Compare this build with that of another revision, on the wire and at the most peers; with
    /// --check fail if it is slower by a metric.
    #[arg(long, value_name = "REV", conflicts_with_all = ["variants", "scale"])]
    pub(crate) against: Option<String>,
    /// The agent of that revision, which `cargo xtask bench` builds.
    #[arg(long, hide = true, requires = "against")]
    pub(crate) against_agent: Option<PathBuf>,
    /// What that build is called, and this one.
    #[arg(long, hide = true, requires = "against")]
    pub(crate) against_name: Option<String>,
    #[arg(long, hide = true, requires = "against")]
    pub(crate) this_name: Option<String>,
    /// Measure the policy engine alone, on drawn clusters; needs no privileges.
    #[arg(long)]
    pub(crate) scale: bool,
}

/// What is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables.
    Text,
    /// Figures.
    Json,
}

impl Options {
    /// Whether a metric, named `group/metric`, is to be measured.
    pub(crate) fn wants(&self, metric: &str) -> bool {
        let bare = metric.split_once('/').map_or(metric, |(_, bare)| bare);
        let begins = |wanted: &String| metric.starts_with(wanted) || bare.starts_with(wanted);
        self.metrics.is_empty() || self.metrics.iter().any(begins)
    }

    /// Whether a group is asked for by its name.
    pub(crate) fn names(&self, group: &str) -> bool {
        let of = |wanted: &String| wanted.split('/').next() == Some(group);
        self.metrics.iter().any(of)
    }

    /// Whether anything of a group is to be measured that is measured as a whole.
    pub(crate) fn wants_of(&self, group: &str) -> bool {
        self.metrics.is_empty() || self.names(group)
    }

    /// How much of such a group.
    pub(crate) fn extent(&self, group: &str) -> Extent {
        if self.names(group) && !self.quick {
            Extent::Full
        } else {
            Extent::Default
        }
    }

    /// Whether a variant is to be measured.
    pub(crate) fn wants_variant(&self, variant: &str) -> bool {
        let begins = |wanted: &String| variant.starts_with(wanted);
        self.variants.is_empty() || self.variants.iter().any(begins)
    }

    /// Whether only some variants are to be measured.
    pub(crate) fn has_variants(&self) -> bool {
        !self.variants.is_empty()
    }

    /// How many rounds, where so many are the default.
    pub(crate) fn rounds(&self, full: usize, quick: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { full })
    }

    /// Where the random order begins.
    pub(crate) fn seed(&self) -> u64 {
        let drawn = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(process::id()) ^ now.map_or(0, |now| u64::from(now.subsec_nanos()))
        };
        self.seed.unwrap_or_else(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let all = std::iter::once(&"bench").chain(arguments);
        Options::try_parse_from(all).unwrap()
    }

    #[test]
    fn a_group_named_is_measured_in_full() {
        let extent = |arguments: &[&str]| options(arguments).extent("control");
        assert_eq!(extent(&[]), Extent::Default);
        assert_eq!(extent(&["--metrics", "control,memory"]), Extent::Full);
        assert_eq!(extent(&["--quick", "--metrics=control"]), Extent::Default);
        let wire = options(&["--metrics", "wire/new-udp4"]);
        assert!(!wire.wants_of("control") && wire.names("wire"));
        assert!(options(&[]).wants_of("control") && !options(&[]).names("growth"));
    }

    #[test]
    fn everything_is_wanted_unless_told_otherwise() {
        let all = options(&[]);
        assert!(all.wants("wire/new-udp4") && all.wants_variant("none"));
        assert!(!all.has_variants());
        assert_eq!(all.peers, [10, 1000, 10_000]);
        assert_eq!(
            (all.rounds(9, 3), options(&["--quick"]).rounds(9, 3)),
            (9, 3)
        );
    }

    #[test]
    fn metrics_and_variants_are_chosen_by_how_they_begin() {
        let some = options(&[
            "--metrics",
            "wire/new,denied-udp4",
            "--variants",
            "enforce@10",
        ]);
        assert!(some.wants("wire/new-udp6") && some.wants("wire/denied-udp4"));
        assert!(!some.wants("wire/denied-udp6") && !some.wants("kernel/new4"));
        assert!(some.wants_variant("enforce@10000") && !some.wants_variant("observe@10"));
        assert!(some.has_variants());
    }

    #[test]
    fn another_revision_is_compared_with_as_a_whole() {
        assert_eq!(options(&[]).against, None);
        let against = options(&["--against", "HEAD~1", "--metrics", "new", "--rounds=12"]);
        assert_eq!(against.against.as_deref(), Some("HEAD~1"));
        assert!(against.wants("wire/new-udp4") && !against.wants("wire/denied-udp4"));
        assert_eq!(against.rounds(24, 8), 12);
        for other in [["--variants", "none"].as_slice(), &["--scale"]] {
            let all = [&["bench", "--against", "HEAD"], other].concat();
            assert!(Options::try_parse_from(all).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_seed_can_be_repeated() {
        assert_eq!(options(&["--seed", "7"]).seed(), 7);
    }
}
