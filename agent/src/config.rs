//! The agent's configuration file, `ringfence.toml`.
//!
//! Every key has a default, so an empty file is a valid configuration. Unknown keys are errors;
//! every error has file, line and column and says what was expected. Relative paths are relative to
//! the directory of the configuration file. `source` reads the files that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::model::{DEFAULT_BUDGET, ModeName, NamespaceName, Needs, NodeName, TUNNEL_PORTS};
use crate::source::SourceError;
use crate::source::document::{Document, decode};
use crate::source::limits::MAX_FILE_SIZE;

mod budgets;
mod cluster_ranges;
mod kubernetes;
mod mode_labels;
mod timeouts;

pub use kubernetes::Kubernetes;
pub use mode_labels::{MODE_LABEL, ModeFloor, ModeLabels};
pub use timeouts::Timeouts;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `node`: this node's name. Default: the inventory's local node, otherwise the host name.
    pub node: Option<NodeName>,
    /// `state-dir`: the directory for state that survives a reboot. Default `/var/lib/ringfence`.
    pub state_dir: PathBuf,
    /// `run-dir`: the directory of the control socket. Default `/run/ringfence`.
    pub run_dir: PathBuf,
    /// `bpffs`: the directory where programs and maps are pinned. Default `/sys/fs/bpf/ringfence`.
    pub bpffs: PathBuf,
    /// `inventory`: inventory files, or directories of them. Default none.
    pub inventory: Vec<PathBuf>,
    /// `policies`: policy files, or directories of them. Default none.
    pub policies: Vec<PathBuf>,
    /// `[kubernetes]`: the API server that further workloads and policies come from. Default none.
    pub kubernetes: Option<Kubernetes>,
    /// `[modes]`.
    pub modes: Modes,
    /// `[flows]`.
    pub flows: Flows,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[maps]`.
    pub maps: MapCapacities,
    /// `[timeouts]`: conntrack timeouts in seconds, by protocol and state. Absent keys have built-in
    /// defaults.
    pub timeouts: Timeouts,
    /// `[budgets]`: what the policies of one namespace may need: `rules`, `selectors`, `cidrs` and `rows`.
    /// Absent keys have built-in defaults.
    pub budget: Needs,
    /// `attach`: `"auto"` uses tcx where the kernel has it, `"clsact"` never does. Default auto.
    pub force_clsact: bool,
    /// `attach-bridge`: whether clsact filters are the fence of a new interface until its tcx links are
    /// attached. Default true.
    pub attach_bridge: bool,
    /// `allow-uplink`: whether the device of a default route may have a fence. Default false.
    pub allow_uplink: bool,
    /// `cluster-ranges`: the ranges of the cluster's workloads and Services. An address in them that the
    /// inventory does not list is not `world`. Default none.
    pub cluster_ranges: BTreeSet<IpNet>,
    /// `tunnel-ports`: the UDP ports on which nodes take packets out of others. A rule allows them to a
    /// node only if it names each by itself. Default 4789, 6081, 8472, 51820 and 51871.
    pub tunnel_ports: BTreeSet<u16>,
    /// `debug-kernel-log`: whether the kernel programs log. Default false.
    pub debug_kernel_log: bool,
}

/// `[modes]`: the mode of each namespace, unless `ringfence mode set` has changed it since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modes {
    /// `default`: the mode of namespaces that are not listed. Default `observe`.
    pub default: ModeName,
    /// `name = "mode"` for single namespaces; a namespace called `default` must be under
    /// `[modes.namespaces]`. Default none.
    pub namespaces: BTreeMap<NamespaceName, ModeName>,
}

impl Modes {
    /// The configured mode of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &NamespaceName) -> ModeName {
        self.namespaces
            .get(namespace)
            .copied()
            .unwrap_or(self.default)
    }
}

/// `[flows]`: where flow records are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// `log`: the file to which flow records are appended as JSON lines. Default none.
    pub log: Option<PathBuf>,
    /// `log-max-bytes`: the size at which the log is rotated. Default 67108864 (64 MiB).
    pub log_max_bytes: u64,
    /// `log-files`: the number of rotated files to keep. Default 3.
    pub log_files: u32,
    /// `history`: the number of recent flow records to keep in memory. Default 8192.
    pub history: u32,
}

/// `[metrics]`: the listener for metrics and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// `listen`: its address. Default `127.0.0.1:9964`.
    pub listen: SocketAddr,
}

/// `[maps]`: capacities of kernel maps, each at least 1. Absent keys have built-in defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapCapacities {
    /// Endpoints on this node.
    pub endpoints: Option<u32>,
    /// Addresses in the ipcache, for each family.
    pub ipcache: Option<u32>,
    /// Prefixes with an identity, for each family.
    pub cidr: Option<u32>,
    /// Rows of policy tables.
    pub policy: Option<u32>,
    /// Assured conntrack entries, for each family.
    pub conntrack: Option<u32>,
    /// Fragmented packets in flight, for each family.
    pub fragments: Option<u32>,
    /// Deny aggregates.
    pub denies: Option<u32>,
}

type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawConfig {
    node: Option<Text>,
    state_dir: Option<Text>,
    run_dir: Option<Text>,
    bpffs: Option<Text>,
    #[serde(default)]
    inventory: Vec<Text>,
    #[serde(default)]
    policies: Vec<Text>,
    kubernetes: Option<kubernetes::RawKubernetes>,
    #[serde(default)]
    modes: RawModes,
    #[serde(default)]
    flows: RawFlows,
    #[serde(default)]
    metrics: RawMetrics,
    maps: Option<Spanned<MapCapacities>>,
    #[serde(default)]
    timeouts: timeouts::RawTimeouts,
    #[serde(default)]
    budgets: budgets::RawBudgets,
    attach: Option<Text>,
    attach_bridge: Option<bool>,
    #[serde(default)]
    allow_uplink: bool,
    #[serde(default)]
    cluster_ranges: Vec<Text>,
    tunnel_ports: Option<BTreeSet<u16>>,
    #[serde(default)]
    debug_kernel_log: bool,
}

/// The keys `default` and `namespaces`, and any other namespace by its name.
#[derive(Default)]
struct RawModes {
    default: Option<Text>,
    namespaces: Vec<(Text, Text)>,
}

// Written by hand, because a flattened map would lose the position of its keys in the file.
impl<'de> Deserialize<'de> for RawModes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = RawModes;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("`default` and namespaces, each with a mode")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawModes, A::Error> {
                let mut modes = RawModes::default();
                while let Some(key) = map.next_key::<Text>()? {
                    match key.get_ref().as_str() {
                        "default" => modes.default = Some(map.next_value()?),
                        "namespaces" => {
                            modes
                                .namespaces
                                .extend(map.next_value::<BTreeMap<Text, Text>>()?);
                        }
                        _ => modes.namespaces.push((key, map.next_value()?)),
                    }
                }
                Ok(modes)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFlows {
    log: Option<Text>,
    log_max_bytes: Option<Spanned<u64>>,
    log_files: Option<Spanned<u32>>,
    history: Option<Spanned<u32>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMetrics {
    listen: Option<Text>,
}

/// The smallest allowed `log-max-bytes`.
const MIN_LOG_BYTES: u64 = 4096;

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, or all errors in it.
    pub fn load(path: &Path) -> Result<Self, Vec<SourceError>> {
        let name = path.to_string_lossy();
        let bytes = std::fs::read(path).map_err(|error| {
            let message = format!("cannot be read: {error}; expected a configuration file");
            vec![SourceError::whole_file(&name, message)]
        })?;
        let text = decode(&name, &bytes, MAX_FILE_SIZE).map_err(|error| vec![error])?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, text, directory)
    }

    /// Takes what the file does not say, and an agent must know, from the environment. `path` is the file's,
    /// for errors.
    ///
    /// # Errors
    /// When the environment does not say it either.
    pub fn complete(&mut self, path: &Path) -> Result<(), Vec<SourceError>> {
        let Some(kubernetes) = &mut self.kubernetes else {
            return Ok(());
        };
        let completed =
            kubernetes.complete(&path.to_string_lossy(), |name| std::env::var(name).ok());
        completed.map_err(|error| vec![error])
    }

    /// Parses a configuration; relative paths in it are relative to `directory`.
    ///
    /// # Errors
    /// All errors in it.
    pub fn parse(file: &str, text: &str, directory: &Path) -> Result<Self, Vec<SourceError>> {
        let mut document = Document::new(file, text, MAX_FILE_SIZE).map_err(|error| vec![error])?;
        let raw: RawConfig = document.read().map_err(|error| vec![error])?;
        let mut reader = Reader {
            document: &mut document,
            directory,
        };
        let config = Self {
            node: reader.parsed(raw.node),
            state_dir: reader.path_or(raw.state_dir, "/var/lib/ringfence"),
            run_dir: reader.path_or(raw.run_dir, "/run/ringfence"),
            bpffs: reader.path_or(raw.bpffs, "/sys/fs/bpf/ringfence"),
            inventory: reader.paths(&raw.inventory),
            policies: reader.paths(&raw.policies),
            kubernetes: (raw.kubernetes).map(|raw| kubernetes::read(&mut reader, raw)),
            modes: reader.modes(raw.modes),
            flows: reader.flows(raw.flows),
            metrics: reader.metrics(raw.metrics),
            maps: reader.maps(raw.maps),
            timeouts: timeouts::read(reader.document, &raw.timeouts),
            budget: budgets::read(reader.document, raw.budgets),
            force_clsact: reader.attach(raw.attach),
            attach_bridge: raw.attach_bridge.unwrap_or(true),
            allow_uplink: raw.allow_uplink,
            cluster_ranges: cluster_ranges::read(
                reader.document,
                raw.cluster_ranges
                    .into_iter()
                    .map(|text| (text.get_ref().clone(), text.span())),
            ),
            tunnel_ports: raw.tunnel_ports.unwrap_or(TUNNEL_PORTS.into()),
            debug_kernel_log: raw.debug_kernel_log,
        };
        document.close()?;
        Ok(config)
    }
}

impl Default for Config {
    /// The configuration of the empty file.
    fn default() -> Self {
        Self {
            node: None,
            state_dir: PathBuf::from("/var/lib/ringfence"),
            run_dir: PathBuf::from("/run/ringfence"),
            bpffs: PathBuf::from("/sys/fs/bpf/ringfence"),
            inventory: Vec::new(),
            policies: Vec::new(),
            kubernetes: None,
            modes: Modes::default(),
            flows: Flows::default(),
            metrics: Metrics::default(),
            maps: MapCapacities::default(),
            timeouts: Timeouts::new(),
            budget: DEFAULT_BUDGET,
            force_clsact: false,
            attach_bridge: true,
            allow_uplink: false,
            cluster_ranges: BTreeSet::new(),
            tunnel_ports: TUNNEL_PORTS.into(),
            debug_kernel_log: false,
        }
    }
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            log: None,
            log_max_bytes: 64 * 1024 * 1024,
            log_files: 3,
            history: 8192,
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9964)),
        }
    }
}

struct Reader<'r, 'a> {
    document: &'r mut Document<'a>,
    directory: &'r Path,
}

impl Reader<'_, '_> {
    fn parsed<T>(&mut self, text: Option<Text>) -> Option<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        text.and_then(|text| self.document.accept(text.span(), text.get_ref().parse()))
    }

    fn path(&mut self, text: &Text) -> PathBuf {
        if text.get_ref().is_empty() || text.get_ref().contains('\0') {
            let message = "not a path: expected a non-empty path without NUL";
            self.document.refuse(text.span(), message);
        }
        self.directory.join(text.get_ref())
    }

    fn path_or(&mut self, text: Option<Text>, default: &str) -> PathBuf {
        text.map_or_else(|| PathBuf::from(default), |text| self.path(&text))
    }

    fn paths(&mut self, texts: &[Text]) -> Vec<PathBuf> {
        texts.iter().map(|text| self.path(text)).collect()
    }

    fn modes(&mut self, raw: RawModes) -> Modes {
        let default = self.parsed(raw.default).unwrap_or_default();
        let mut namespaces = BTreeMap::new();
        for (name, mode) in raw.namespaces {
            let name = self.parsed(Some(name));
            if let (Some(name), Some(mode)) = (name, self.parsed(Some(mode))) {
                namespaces.insert(name, mode);
            }
        }
        Modes {
            default,
            namespaces,
        }
    }

    fn attach(&mut self, raw: Option<Text>) -> bool {
        match raw.as_ref().map(|text| text.get_ref().as_str()) {
            None | Some("auto") => {}
            Some("clsact") => return true,
            Some(_) => {
                let span = raw.map_or(0..0, |text| text.span());
                self.document
                    .refuse(span, "unknown attach: expected \"auto\" or \"clsact\"");
            }
        }
        false
    }

    fn flows(&mut self, raw: RawFlows) -> Flows {
        let default = Flows::default();
        if let Some(bytes) = raw
            .log_max_bytes
            .as_ref()
            .filter(|b| *b.get_ref() < MIN_LOG_BYTES)
        {
            let message = format!("log-max-bytes is too small: expected at least {MIN_LOG_BYTES}");
            self.document.refuse(bytes.span(), message);
        }
        for (key, value) in [("log-files", &raw.log_files), ("history", &raw.history)] {
            if let Some(value) = value.as_ref().filter(|value| *value.get_ref() == 0) {
                let message = format!("{key} is 0: expected at least 1");
                self.document.refuse(value.span(), message);
            }
        }
        Flows {
            log: raw.log.map(|text| self.path(&text)),
            log_max_bytes: raw
                .log_max_bytes
                .map_or(default.log_max_bytes, Spanned::into_inner),
            log_files: raw.log_files.map_or(default.log_files, Spanned::into_inner),
            history: raw.history.map_or(default.history, Spanned::into_inner),
        }
    }

    fn metrics(&mut self, raw: RawMetrics) -> Metrics {
        let Some(text) = raw.listen else {
            return Metrics::default();
        };
        if let Ok(listen) = text.get_ref().parse() {
            return Metrics { listen };
        }
        let message = "not a listen address: expected address:port, for example 127.0.0.1:9964";
        self.document.refuse(text.span(), message);
        Metrics::default()
    }

    fn maps(&mut self, raw: Option<Spanned<MapCapacities>>) -> MapCapacities {
        let Some(raw) = raw else {
            return MapCapacities::default();
        };
        let (span, maps) = (raw.span(), raw.into_inner());
        for (key, capacity) in [
            ("endpoints", maps.endpoints),
            ("ipcache", maps.ipcache),
            ("cidr", maps.cidr),
            ("policy", maps.policy),
            ("conntrack", maps.conntrack),
            ("fragments", maps.fragments),
            ("denies", maps.denies),
        ] {
            if capacity == Some(0) {
                let message = format!("capacity {key} is 0: expected at least 1");
                self.document.refuse(span.clone(), message);
            }
        }
        if maps.endpoints.is_some_and(|most| most > MAX_ENDPOINTS) {
            let message =
                format!("capacity endpoints is too large: expected at most {MAX_ENDPOINTS}");
            self.document.refuse(span, message);
        }
        maps
    }
}

/// Endpoint numbers have this many bits in conntrack.
const MAX_ENDPOINTS: u32 = (1 << ringfence_common::conntrack::unreplied::OWNER_BITS) - 1;

#[cfg(test)]
mod tests;
