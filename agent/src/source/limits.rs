//! Limits for the contents of a source file.
//!
//! They are far above what people write, and low enough that a hostile file is refused within a
//! second and in bounded memory, both when it is parsed and when it is compiled.

/// The maximum size of an inventory or configuration file, which the operator of the agent writes.
pub(crate) const MAX_FILE_SIZE: usize = 8 * 1024 * 1024;
/// The maximum size of a TOML policy file: 10,000 address ranges in a verbose notation, and some
/// more. Parsing takes up to 65 times the size of the text: 48 MiB.
pub(crate) const MAX_TOML_POLICY_SIZE: usize = 768 * 1024;
/// The maximum size of a file of Kubernetes objects. Its content is limited by [`MAX_NODES`] as
/// well.
pub(crate) const MAX_KUBERNETES_SIZE: usize = 2 * 1024 * 1024;
/// The maximum nesting depth of a YAML document; lists of managed objects need about 20.
pub(crate) const MAX_DEPTH: usize = 64;
/// The maximum number of values in a YAML file, with aliases expanded.
pub(crate) const MAX_NODES: usize = 400_000;
/// The maximum number of documents in a YAML file.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;
/// The maximum number of errors, and of warnings, that are reported one by one for a file.
pub(crate) const MAX_FINDINGS: usize = 200;
/// The maximum number of rules in one direction of a policy.
pub(crate) const MAX_RULES: usize = 1000;
/// The maximum number of peers of a rule, and of exceptions of a range.
pub(crate) const MAX_PEERS: usize = 20_000;
/// The maximum number of entries in a rule's ports.
pub(crate) const MAX_PORTS: usize = 1000;
/// The maximum number, each, of rules, peers, protocols and networks in a ClusterNetworkPolicy; the
/// API has the same limit.
pub(crate) const MAX_CLUSTER_ITEMS: usize = 25;
/// The maximum number of tests of a TOML policy.
pub(crate) const MAX_TESTS: usize = 1000;
/// The maximum number of requirements of a label selector.
pub(crate) const MAX_REQUIREMENTS: usize = 100;
/// The maximum number of values of one requirement.
pub(crate) const MAX_SELECTOR_VALUES: usize = 1000;
/// The maximum number of characters of an owner, a justification or a ticket.
pub(crate) const MAX_FREE_TEXT: usize = 1000;
/// The maximum number of characters of a rule's name.
pub(crate) const MAX_RULE_NAME: usize = 100;
