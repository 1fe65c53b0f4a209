//! The Kubernetes objects of a case, as their documents were written.
//!
//! Documents are split at their separators and otherwise not changed, so that the YAML of a case
//! reaches the agent exactly as written. They are parsed only to identify the object that each one
//! describes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};
use serde::Deserialize;

/// An object's key: kind in lower case, namespace unless it is cluster-scoped, name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectKey {
    kind: String,
    namespace: Option<String>,
    pub(super) name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl FromStr for ObjectKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts.as_slice() {
            [kind, namespace, name] => (kind, Some((*namespace).to_owned()), name),
            [kind, name] => (kind, None, name),
            _ => bail!("{text:?} is not an object: expected kind/namespace/name or kind/name"),
        };
        Ok(Self {
            kind: kind.to_ascii_lowercase(),
            namespace,
            name: (*name).to_owned(),
        })
    }
}

/// One document of a YAML stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// Directives such as `%YAML`, which precede the separator.
    directives: String,
    /// Everything after the three dashes.
    body: String,
    /// `None` if the document cannot be parsed or does not describe an object.
    pub(super) key: Option<ObjectKey>,
}

/// Splits a stream into its documents; documents without content are left out.
pub(super) fn split(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut directives = String::new();
    let mut body: Option<String> = None;
    let mut finish = |directives: &mut String, body: &mut Option<String>| {
        if let Some(body) = body.take() {
            let directives = std::mem::take(directives);
            if has_content(&body) {
                let key = key(&body);
                documents.push(Document {
                    directives,
                    body,
                    key,
                });
            }
        }
    };
    for line in text.lines() {
        if let Some(rest) = marker(line, "---") {
            finish(&mut directives, &mut body);
            body = Some(format!("{rest}\n"));
        } else if marker(line, "...").is_some() {
            finish(&mut directives, &mut body);
        } else if body.is_none() && line.starts_with('%') {
            directives.push_str(line);
            directives.push('\n');
        } else if body.is_some() || has_content(line) {
            let body = body.get_or_insert_with(|| "\n".to_owned());
            body.push_str(line);
            body.push('\n');
        }
    }
    finish(&mut directives, &mut body);
    documents
}

/// The text after a marker at the start of a line.
fn marker<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r'])).then_some(rest)
}

fn has_content(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    })
}

fn key(body: &str) -> Option<ObjectKey> {
    #[derive(Deserialize)]
    struct Object {
        kind: String,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
        namespace: Option<String>,
    }
    let object: Object = serde_saphyr::from_str(body).ok()?;
    let kind = object.kind.to_ascii_lowercase();
    let namespace = match kind.as_str() {
        "clusternetworkpolicy" => None,
        _ => Some(
            object
                .metadata
                .namespace
                .unwrap_or_else(|| "default".to_owned()),
        ),
    };
    Some(ObjectKey {
        kind,
        namespace,
        name: object.metadata.name,
    })
}

/// All objects, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Objects(Vec<Document>);

impl Objects {
    /// Creates or replaces the objects of the documents; if two describe one object, the last one
    /// applies.
    pub(super) fn apply(&mut self, documents: Vec<Document>) {
        for document in documents {
            let place = self
                .0
                .iter_mut()
                .find(|present| present.key.is_some() && present.key == document.key);
            match place {
                Some(place) => *place = document,
                None => self.0.push(document),
            }
        }
    }

    /// A copy with these documents instead of the objects they describe, keeping duplicates: the
    /// content that an `apply` that must be refused would write.
    pub(super) fn with(&self, documents: Vec<Document>) -> Self {
        let stays = |present: &&Document| {
            present.key.is_none() || documents.iter().all(|it| it.key != present.key)
        };
        let mut all: Vec<Document> = self.0.iter().filter(stays).cloned().collect();
        all.extend(documents);
        Self(all)
    }

    /// Deletes an object.
    pub(super) fn delete(&mut self, key: &ObjectKey) -> Result<()> {
        let at = self.0.iter().position(|it| it.key.as_ref() == Some(key));
        let at = at.with_context(|| format!("{key} does not exist and cannot be deleted"))?;
        self.0.remove(at);
        Ok(())
    }

    /// The text of the file with all objects, in reverse order if `reversed`.
    pub(super) fn render(&self, reversed: bool) -> String {
        let mut text = String::new();
        let mut add = |document: &Document| {
            if !document.directives.is_empty() {
                if !text.is_empty() {
                    text.push_str("...\n");
                }
                text.push_str(&document.directives);
            }
            text.push_str("---");
            text.push_str(&document.body);
        };
        if reversed {
            self.0.iter().rev().for_each(&mut add);
        } else {
            self.0.iter().for_each(&mut add);
        }
        text
    }
}

#[cfg(test)]
mod tests;
