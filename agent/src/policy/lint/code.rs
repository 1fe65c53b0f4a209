//! The codes of all lints, each with what it means and what to do about it.
//!
//! Invariants: names are stable, because people allow and deny findings by them; `--help`, SARIF
//! and the manual all show this one table.

use std::fmt;
use std::str::FromStr;

use crate::model::{PolicyKind, quote};

macro_rules! codes {
    ($($variant:ident $name:literal: $about:literal => $remedy:literal;)*) => {
        /// What kind of finding it is.
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

            /// What to do about it, in one line.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    MissingOwner "missing-owner": "a policy that nobody answers for"
        => "name the team that answers for it: owner = \"…\"";
    MissingJustification "missing-justification": "a policy that does not say why it exists"
        => "say why it exists: justification = \"…\"";
    ReviewOverdue "review-overdue": "a policy whose day of review has passed"
        => "look at it again, then move review-by, or remove the policy";
    ExpiredRule "expired-rule": "a rule that has expired and matches nothing"
        => "remove the rule, or move expires if it is still needed";
    LongExpiry "long-expiry": "a rule that expires more than 90 days from now"
        => "let it expire within 90 days and renew it, or drop expires if it is to stay";
    NoPorts "no-ports": "an allow rule without ports, which allows every protocol and port"
        => "list the ports that are needed, such as \"tcp/443\"";
    AnyPeer "any-peer": "an allow rule without from or to, which allows everyone"
        => "name who is meant by labels or service account, or say { entity = \"world\" }";
    EmptySelector "empty-selector": "an allow rule whose peer is every workload"
        => "name who is meant by labels or service account";
    AnyAddress "any-address": "an allow rule for 0.0.0.0/0 or ::/0"
        => "use { entity = \"world\" } for what is outside, or a smaller range";
    WideCidr "wide-cidr": "an allow rule for IPv4 /8 or wider, or IPv6 /24 or wider"
        => "use the ranges that the other side publishes, or { entity = \"world\" }";
    MetadataAddress "metadata-address": "an allow rule that lets workloads reach the cloud's metadata service, which hands out credentials"
        => "except 169.254.169.254/32 and fd00:ec2::254/128, or use { entity = \"world\" } with a deny for them";
    InternalCidr "internal-cidr": "a rule that takes an internal address for an identity"
        => "name the workloads by labels, namespace or service account: addresses change hands";
    OneFamily "one-family": "a rule with ranges of IPv4 or IPv6 alone"
        => "add the ranges of the other family, or what it allows or denies depends on the family";
    DnsForgotten "dns-forgotten": "a policy that fences egress while no policy lets its workloads ask for names"
        => "allow udp/53 and tcp/53 to the resolver in this or another policy that selects them";
    NoDefaultDeny "no-default-deny": "a namespace whose workloads are open unless a policy happens to select them"
        => "add a policy with subject = \"\", ingress = [] and egress = []";
    UnmatchedSelector "unmatched-selector": "a selector that matches no workload of the inventory"
        => "mend the labels, or remove what is no longer needed";
    UnresolvedPort "unresolved-port": "a named port that no destination declares"
        => "use the number, or declare the port on the destination";
    ShadowedRule "shadowed-rule": "a rule that never decides, because another one covers it"
        => "remove it, or narrow the rule that covers it";
    DuplicateRule "duplicate-rule": "a rule that says what another rule for the same workloads says"
        => "remove one of the two";
    DuplicatePolicy "duplicate-policy": "a policy that equals another one but for its name"
        => "remove one of the two";
    EqualPriority "equal-priority": "cluster policies of one tier and priority that may select the same workloads"
        => "give each its own priority: at a tie deny beats reject beats pass beats allow";
    HostBits "host-bits": "a range with host bits, which are ignored"
        => "write the range that is meant";
    IgnoredRules "ignored-rules": "rules of a direction that a NetworkPolicy does not speak about"
        => "name the direction in policyTypes, or remove its rules";
    NoPodSelector "no-pod-selector": "a NetworkPolicy about every pod because it does not say about which"
        => "write podSelector: {} if every pod is meant";
    FailsClosed "fails-closed": "a rule with a kind of peer that this version does not know"
        => "write peers that this version supports: until then allow rules match nobody, others everyone";
}

impl LintCode {
    /// What to do about it in the language of the policy.
    #[must_use]
    pub const fn remedy_in(self, kind: PolicyKind) -> &'static str {
        match (kind, self) {
            (PolicyKind::Ringfence, _) => self.remedy(),
            (_, Self::MissingOwner) => {
                "name the team that answers for it in the annotation ringfence.io/owner"
            }
            (_, Self::MissingJustification) => {
                "say why it exists in the annotation ringfence.io/justification"
            }
            (_, Self::ReviewOverdue) => {
                "look at it again, then move the annotation ringfence.io/review-by"
            }
            (_, Self::NoPorts) => "list the ports that are needed",
            (_, Self::AnyPeer) => "name who is meant by podSelector and namespaceSelector",
            (_, Self::AnyAddress | Self::WideCidr) => "use the ranges that are meant",
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

/// A name that no lint has.
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
    fn kubernetes_objects_are_mended_by_annotations() {
        let remedy = LintCode::MissingOwner.remedy_in(PolicyKind::NetworkPolicy);
        assert!(remedy.contains("ringfence.io/owner"));
    }
}
