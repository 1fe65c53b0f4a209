//! All lint codes, with their meaning and remedy.
//!
//! Invariants: names are stable, because findings are allowed and denied by name. `--help`, SARIF
//! and the manual show this table.

use std::fmt;
use std::str::FromStr;

use crate::model::{PolicyKind, quote};

macro_rules! codes {
    ($($variant:ident $name:literal: $about:literal => $remedy:literal;)*) => {
        /// The code of a finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LintCode {
            $(#[doc = $about] $variant,)*
        }

        impl LintCode {
            /// Every code, in the order of the manual.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its stable name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it finds, in one line.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// The remedy, in one line.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    MissingOwner "missing-owner": "a policy without an owner"
        => "name the team that owns it: owner = \"…\"";
    MissingJustification "missing-justification": "a policy without a justification"
        => "state why it exists: justification = \"…\"";
    ReviewOverdue "review-overdue": "a policy whose review date has passed"
        => "review it and move review-by, or remove the policy";
    ExpiredRule "expired-rule": "a rule that has expired and matches nothing"
        => "remove the rule, or move expires if it is still needed";
    LongExpiry "long-expiry": "a rule that expires more than 90 days from now"
        => "let it expire within 90 days and renew it, or remove expires to keep it";
    NoPorts "no-ports": "an allow rule without ports, which allows every protocol and port"
        => "list the ports that are needed, such as \"tcp/443\"";
    AnyPeer "any-peer": "an allow rule without from or to, which allows every peer"
        => "select the peers by labels or service account, or use { entity = \"world\" }";
    EmptySelector "empty-selector": "an allow rule whose peer is every workload"
        => "select the peers by labels or service account";
    AnyAddress "any-address": "an allow rule for 0.0.0.0/0 or ::/0"
        => "use { entity = \"world\" } for what is outside, or a smaller range";
    WideCidr "wide-cidr": "an allow rule for IPv4 /8 or wider, or IPv6 /24 or wider"
        => "use the ranges that the other side publishes, or { entity = \"world\" }";
    MetadataAddress "metadata-address": "an allow rule that lets workloads reach the cloud's metadata service, which hands out credentials"
        => "except 169.254.169.254/32 and fd00:ec2::254/128, or use { entity = \"world\" } with a deny for them";
    InternalCidr "internal-cidr": "a rule that uses an internal address as an identity"
        => "select the workloads by labels, namespace or service account: addresses are reused";
    OneFamily "one-family": "a rule with ranges of only one address family"
        => "add the ranges of the other family, or what it allows or denies depends on the family";
    DnsForgotten "dns-forgotten": "a policy that isolates egress while no policy allows its workloads to use DNS"
        => "allow udp/53 and tcp/53 to the resolver in this or another policy that selects them";
    NoDefaultDeny "no-default-deny": "a namespace whose workloads are open unless a policy selects them"
        => "add a policy with subject = \"\", ingress = [] and egress = []";
    UnmatchedSelector "unmatched-selector": "a selector that matches no workload of the inventory"
        => "correct the labels, or remove what is no longer needed";
    UnresolvedPort "unresolved-port": "a named port that no destination declares"
        => "use the number, or declare the port on the destination";
    ShadowedRule "shadowed-rule": "a rule that never decides, because another one covers it"
        => "remove it, or narrow the rule that covers it";
    DuplicateRule "duplicate-rule": "a rule with the same content as another rule for the same workloads"
        => "remove one of the two";
    DuplicatePolicy "duplicate-policy": "a policy that differs from another one only in its name"
        => "remove one of the two";
    EqualPriority "equal-priority": "cluster policies of one tier and priority that may select the same workloads"
        => "give each its own priority: on a tie deny beats reject beats pass beats allow";
    HostBits "host-bits": "a range with host bits, which are ignored"
        => "write the intended range";
    IgnoredRules "ignored-rules": "rules of a direction that is not in a NetworkPolicy's policyTypes"
        => "name the direction in policyTypes, or remove its rules";
    NoPodSelector "no-pod-selector": "a NetworkPolicy without podSelector, which selects every pod"
        => "write podSelector: {} to select every pod";
    FailsClosed "fails-closed": "a rule with a peer type that this version does not know"
        => "write peers that this version supports: until then allow rules match no peer, other rules every peer";
}

impl LintCode {
    /// The remedy, in the language of the policy.
    #[must_use]
    pub const fn remedy_in(self, kind: PolicyKind) -> &'static str {
        match (kind, self) {
            (PolicyKind::Ringfence, _) => self.remedy(),
            (_, Self::MissingOwner) => {
                "name the team that owns it in the annotation ringfence.io/owner"
            }
            (_, Self::MissingJustification) => {
                "state why it exists in the annotation ringfence.io/justification"
            }
            (_, Self::ReviewOverdue) => "review it and move the annotation ringfence.io/review-by",
            (_, Self::NoPorts) => "list the ports that are needed",
            (_, Self::AnyPeer) => "select the peers by podSelector and namespaceSelector",
            (_, Self::AnyAddress | Self::WideCidr) => "use the intended ranges",
            (_, Self::MetadataAddress) => {
                "except 169.254.169.254/32 and fd00:ec2::254/128 from the range"
            }
            (_, Self::NoDefaultDeny) => {
                "add a NetworkPolicy with podSelector: {} and policyTypes: [Ingress, Egress]"
            }
            (_, _) => self.remedy(),
        }
    }
}

impl fmt::Display for LintCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// A name without a lint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown lint {}: expected one of {}", quote(.0), names())]
pub struct UnknownCode(String);

fn names() -> String {
    let names: Vec<_> = LintCode::ALL.iter().map(|code| code.name()).collect();
    names.join(", ")
}

impl FromStr for LintCode {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut codes = Self::ALL.iter().copied();
        codes
            .find(|code| code.name() == text)
            .ok_or_else(|| UnknownCode(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_read_back() {
        for code in LintCode::ALL {
            assert_eq!(code.name().parse(), Ok(*code));
        }
        let error = "owner".parse::<LintCode>().unwrap_err().to_string();
        for code in LintCode::ALL {
            assert!(error.contains(code.name()), "{error}");
        }
    }

    #[test]
    fn remedies_for_kubernetes_objects_name_annotations() {
        let remedy = LintCode::MissingOwner.remedy_in(PolicyKind::NetworkPolicy);
        assert!(remedy.contains("ringfence.io/owner"));
    }
}
