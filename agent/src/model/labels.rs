//! Labels: validated key and value pairs in Kubernetes syntax.
//!
//! Keys are an optional RFC 1123 subdomain prefix and `/`, then a name of at most 63 characters;
//! values are at most 63 characters and may be empty. Equal sets of labels compare equal, order the
//! same and hash the same; identities depend on this.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::name::is_rfc1123_subdomain;
use super::quote::quote;

/// The maximum length of the name part of a key, and of a value.
const MAX_WORD: usize = 63;

/// A label that Kubernetes would refuse as well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key breaks the syntax.
    #[error(
        "{} is not a label key: expected [prefix/]name with a name of 1 to 63 letters, digits, \
         '-', '_' or '.', starting and ending with a letter or digit, and a DNS name as prefix",
        quote(.0)
    )]
    Key(String),
    /// The value breaks the syntax.
    #[error(
        "{} is not a label value: expected at most 63 letters, digits, '-', '_' or '.', starting \
         and ending with a letter or digit",
        quote(.0)
    )]
    Value(String),
}

/// A set of labels, at most one value for each key. Clones share it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<BTreeMap<String, String>>);

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_WORD
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Checks a label key.
///
/// # Errors
/// When the key breaks the syntax.
pub fn check_key(key: &str) -> Result<(), LabelError> {
    let good = match key.split_once('/') {
        Some((prefix, name)) => is_rfc1123_subdomain(prefix) && is_word(name),
        None => is_word(key),
    };
    if good {
        Ok(())
    } else {
        Err(LabelError::Key(key.to_owned()))
    }
}

/// Checks a label value; the empty value is valid.
///
/// # Errors
/// When the value breaks the syntax.
pub fn check_value(value: &str) -> Result<(), LabelError> {
    if value.is_empty() || is_word(value) {
        Ok(())
    } else {
        Err(LabelError::Value(value.to_owned()))
    }
}

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks and collects labels; a later value replaces an earlier one of the same key.
    ///
    /// # Errors
    /// At the first key or value that breaks the syntax.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, LabelError>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let mut labels = Self::new();
        for (key, value) in pairs {
            labels.insert(key.into(), value.into())?;
        }
        Ok(labels)
    }

    /// Adds or replaces one label.
    ///
    /// # Errors
    /// When the key or the value breaks the syntax.
    pub fn insert(&mut self, key: String, value: String) -> Result<(), LabelError> {
        check_key(&key)?;
        check_value(&value)?;
        Arc::make_mut(&mut self.0).insert(key, value);
        Ok(())
    }

    /// Sets a label whose key and value are known to be valid.
    pub(super) fn set_checked(&mut self, key: &str, value: &str) {
        Arc::make_mut(&mut self.0).insert(key.to_owned(), value.to_owned());
    }

    /// The value of a key, if the key is present.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All labels in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Only the labels with keys that a test accepts.
    #[must_use]
    pub fn with_keys(&self, accepts: impl Fn(&str) -> bool) -> Self {
        if self.0.keys().all(|key| accepts(key)) {
            return self.clone();
        }
        let kept = self.0.iter().filter(|(key, _)| accepts(key));
        let kept = kept.map(|(key, value)| (key.clone(), value.clone()));
        Self(Arc::new(kept.collect()))
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let longest = format!("{}/{}", "a".repeat(253), "b".repeat(63));
        for good in ["app", "App_1.x", "k8s.io/name", "9", longest.as_str()] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        let too_long = "b".repeat(64);
        for bad in [
            "", "/", "a/", "/a", "K8s.io/a", "a/b/c", "-a", "a-", "a b", "ä", &too_long,
        ] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values() {
        let longest = "b".repeat(63);
        for good in ["", "a", "A.b-c_d", longest.as_str()] {
            assert_eq!(check_value(good), Ok(()), "{good}");
        }
        let too_long = "b".repeat(64);
        for bad in ["-a", "a-", "a/b", "a b", "a\u{202e}b", too_long.as_str()] {
            assert!(check_value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_displayed_in_key_order() {
        let labels = Labels::from_pairs([("tier", "web"), ("app", "")]).unwrap();
        assert_eq!(labels.to_string(), "app=,tier=web");
        assert_eq!(labels.get("tier"), Some("web"));
        assert_eq!(labels.get("none"), None);
    }
}
