//! How much one policy file may hold.
//!
//! Far more than people write, and little enough that a hostile file is refused within a second
//! and in bounded memory, both when it is parsed and when it is compiled.

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
pub(crate) const MAX_PEERS: usize = 10_000;
/// The most entries of a rule's ports.
pub(crate) const MAX_PORTS: usize = 1000;
/// The most rules, peers, protocols and networks of a ClusterNetworkPolicy, each: the API's own.
pub(crate) const MAX_CLUSTER_ITEMS: usize = 25;
/// The most requirements of a label selector.
pub(crate) const MAX_REQUIREMENTS: usize = 100;
/// The most values of one requirement.
pub(crate) const MAX_SELECTOR_VALUES: usize = 1000;
/// The most characters of an owner, a justification or a ticket.
pub(crate) const MAX_FREE_TEXT: usize = 1000;
/// The most characters of a rule's name.
pub(crate) const MAX_RULE_NAME: usize = 100;
