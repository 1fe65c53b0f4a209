//! One cluster for several tests.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;

use crate::{Cluster, Spec};

static SHARED: Mutex<Vec<(Spec, Weak<Cluster>)>> = Mutex::new(Vec::new());

impl Cluster {
    /// The cluster like `spec` that other tests of this process use, or a new one; the name does
    /// not count. It ends with the last value, so tests that run at the same time share it. Each
    /// test needs a Kubernetes namespace of its own.
    pub fn shared(spec: &Spec) -> Result<Arc<Self>> {
        // The lock is held while the cluster comes up: the others wait for it. A panic meanwhile
        // leaves the list as it was.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, cluster)| cluster.strong_count() > 0);
        let mut alike = shared.iter().filter(|(other, _)| is_alike(other, spec));
        if let Some(cluster) = alike.find_map(|(_, cluster)| cluster.upgrade()) {
            return Ok(cluster);
        }
        let spec = Spec {
            name: Spec::unnamed().name,
            ..spec.clone()
        };
        let cluster = Arc::new(Self::up(&spec)?);
        shared.push((spec, Arc::downgrade(&cluster)));
        Ok(cluster)
    }
}

fn is_alike(one: &Spec, other: &Spec) -> bool {
    let unnamed = |spec: &Spec| Spec {
        name: String::new(),
        ..spec.clone()
    };
    unnamed(one) == unnamed(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_may_differ() {
        let spec = Spec::new("a");
        assert!(is_alike(&spec, &Spec::new("b")));
        assert!(!is_alike(
            &spec,
            &Spec {
                nodes: 3,
                ..spec.clone()
            }
        ));
    }
}
