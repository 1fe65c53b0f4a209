//! Validated names: a value of these types has the syntax that Kubernetes requires of such a name.
//!
//! Names are shared, immutable text: cloning one increments a reference count. They order and hash
//! like their text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::quote::quote;

/// The maximum length of an RFC 1123 label.
const MAX_LABEL: usize = 63;
/// The maximum length of an RFC 1123 subdomain.
const MAX_SUBDOMAIN: usize = 253;
/// The maximum length of a port name (RFC 6335).
const MAX_PORT_NAME: usize = 15;

/// Text that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a {what}: expected {expected}", quote(text))]
pub struct NameError {
    /// What the text was expected to be, such as "namespace name".
    pub what: &'static str,
    /// The rule it must follow.
    pub expected: &'static str,
    /// The refused text.
    pub text: String,
}

const LABEL_RULE: &str = "1 to 63 lower-case letters, digits or '-', starting and ending with \
                          a letter or digit";
const SUBDOMAIN_RULE: &str = "1 to 253 lower-case letters, digits, '-' or '.', each part \
                              starting and ending with a letter or digit";
const PORT_RULE: &str = "1 to 15 lower-case letters, digits or single '-' inside, with at least \
                         one letter";

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_dash_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(is_lower_alphanumeric)
        && bytes.last().copied().is_some_and(is_lower_alphanumeric)
        && bytes
            .iter()
            .all(|&byte| is_lower_alphanumeric(byte) || byte == b'-')
}

/// True for an RFC 1123 label.
pub(super) fn is_rfc1123_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_dash_word(text)
}

/// True for an RFC 1123 subdomain.
pub(super) fn is_rfc1123_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_dash_word)
}

fn is_service_name(text: &str) -> bool {
    text.len() <= MAX_PORT_NAME
        && is_dash_word(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and makes a name of it.
            ///
            /// # Errors
            /// When the text breaks the syntax.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(NameError { what: $what, expected: $rule, text: text.to_owned() })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}

name_type!(
    /// The name of a namespace.
    NamespaceName, "namespace name", is_rfc1123_label, LABEL_RULE
);
name_type!(
    /// The name of a workload within its namespace.
    WorkloadName, "workload name", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a policy within its namespace.
    PolicyName, "policy name", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a service account within its namespace.
    ServiceAccountName, "service account name", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a node.
    NodeName, "node name", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a ServiceCIDR.
    ServiceCidrName, "name of a ServiceCIDR", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a Service within its namespace.
    ServiceName, "name of a Service", is_rfc1123_label, LABEL_RULE
);
name_type!(
    /// The name of an EndpointSlice within its namespace.
    EndpointSliceName, "name of an EndpointSlice", is_rfc1123_subdomain, SUBDOMAIN_RULE
);
name_type!(
    /// The name of a port that a workload declares.
    PortName, "port name", is_service_name, PORT_RULE
);

impl WorkloadName {
    /// The name of a workload that has lost its name to another one, by what tells the two apart. No source can
    /// declare such a name.
    #[must_use]
    pub fn outlived(&self, uid: &str) -> Self {
        let is_plain = |it: &char| it.is_ascii_alphanumeric() || *it == '-';
        let uid: String = uid.chars().filter(is_plain).take(36).collect();
        Self(Arc::from(format!("{}~{uid}", self.0)))
    }
}

impl NodeName {
    /// The name of this node if nothing gives it another.
    #[must_use]
    pub fn this_node() -> Self {
        Self(Arc::from("this-node"))
    }
}

impl Default for ServiceAccountName {
    /// The service account of a workload that does not name one.
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

/// A workload's full name, shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// The workload's namespace.
    pub namespace: NamespaceName,
    /// Its name within the namespace.
    pub name: WorkloadName,
}

impl WorkloadId {
    /// Checks both parts and makes a full name of them.
    ///
    /// # Errors
    /// When either part breaks its syntax.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            namespace: NamespaceName::new(namespace)?,
            name: WorkloadName::new(name)?,
        })
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(NameError {
                what: "workload",
                expected: "namespace/name, for example shop/orders-1",
                text: text.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_kubernetes_accepts() {
        for good in ["a", "0", "shop-1", &"a".repeat(63)] {
            assert!(NamespaceName::new(good).is_ok(), "{good}");
        }
        for good in ["a.b", "orders-1.v2", &"a".repeat(253)] {
            assert!(WorkloadName::new(good).is_ok(), "{good}");
        }
        for good in ["http", "a", "8a", "http-alt", "abcdefghijklmno"] {
            assert!(PortName::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_names_that_kubernetes_refuses() {
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a_b",
            "a\0",
            "ä",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(NamespaceName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.-b", "a/b", &"a".repeat(254)] {
            assert!(WorkloadName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "80", "-a", "a-", "a--b", "A", "abcdefghijklmnop", "a.b"] {
            assert!(PortName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_expected_syntax() {
        assert_eq!(
            NamespaceName::new("Shop\u{1b}").unwrap_err().to_string(),
            r#""Shop\u{1b}" is not a namespace name: expected 1 to 63 lower-case letters, digits or '-', starting and ending with a letter or digit"#
        );
        assert_eq!(
            "orders".parse::<WorkloadId>().unwrap_err().to_string(),
            r#""orders" is not a workload: expected namespace/name, for example shop/orders-1"#
        );
    }

    #[test]
    fn workload_ids_round_trip() {
        let id: WorkloadId = "shop/orders-1".parse().unwrap();
        assert_eq!(id.to_string(), "shop/orders-1");
    }
}
