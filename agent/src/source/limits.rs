//! How much one policy file may hold.
//!
//! Far more than people write, and little enough that a hostile file is refused within a second
//! and in bounded memory, both when it is parsed and when it is compiled.

/// The largest inventory or configuration file: written by whoever runs the agent.
pub(crate) const MAX_FILE_SIZE: usize = 8 * 1024 * 1024;
/// The largest TOML policy file, which is 10,000 ranges of addresses, generously written, and some
/// more. Parsing takes up to 65 times the text's size: 48 MiB.
pub(crate) const MAX_TOML_POLICY_SIZE: usize = 768 * 1024;
/// The largest file of Kubernetes objects. What it may hold is bounded by [`MAX_NODES`] as well.
pub(crate) const MAX_KUBERNETES_SIZE: usize = 2 * 1024 * 1024;
/// The deepest nesting of a YAML document; lists of managed objects take about 20.
pub(crate) const MAX_DEPTH: usize = 64;
/// The most values of a YAML file, those that aliases stand for included.
pub(crate) const MAX_NODES: usize = 400_000;
/// The most documents of a YAML file.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;
/// The most errors, and the most warnings, of one file that are reported one by one.
pub(crate) const MAX_FINDINGS: usize = 200;
/// The most rules of one direction of a policy.
pub(crate) const MAX_RULES: usize = 1000;
/// The most peers of a rule, and exceptions of a range.
pub(crate) const MAX_PEERS: usize = 20_000;
/// The most entries of a rule's ports.
pub(crate) const MAX_PORTS: usize = 1000;
/// The most rules, peers, protocols and networks of a ClusterNetworkPolicy, each: the API's own.
pub(crate) const MAX_CLUSTER_ITEMS: usize = 25;
/// The most tests of a TOML policy.
pub(crate) const MAX_TESTS: usize = 1000;
/// The most requirements of a label selector.
pub(crate) const MAX_REQUIREMENTS: usize = 100;
/// The most values of one requirement.
pub(crate) const MAX_SELECTOR_VALUES: usize = 1000;
/// The most characters of an owner, a justification or a ticket.
pub(crate) const MAX_FREE_TEXT: usize = 1000;
/// The most characters of a rule's name.
pub(crate) const MAX_RULE_NAME: usize = 100;
