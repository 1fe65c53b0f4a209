//! Peer classes: identities that no selector in use can tell apart.
//!
//! Invariants: a class is named by the set of selectors it matches, so an identity that moves to
//! another class carries its meaning with it; identities that match nothing are in no class of
//! their own and read the any-class rows at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ringfence_common::ids::{ClassId, IdentityId};

use super::{
    identity::Identity,
    numbers::{Digest, Exhausted, Numbers, Space, digest_of},
    rows::Class,
    selector::Selector,
};

/// All classes, and the class of each identity.
#[derive(Default)]
pub(crate) struct Classes {
    pub(crate) list: Vec<Class>,
    pub(crate) of: BTreeMap<IdentityId, ClassId>,
}

/// Answers of selectors, kept while the identities stay.
#[derive(Default)]
pub(crate) struct Answers {
    known: HashMap<Digest, Vec<bool>>,
}

impl Answers {
    /// Forgets all answers: the identities changed.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    /// Sorts identities into classes by these selectors.
    pub(crate) fn classify(
        &mut self,
        identities: &[(IdentityId, Identity)],
        selectors: &HashSet<Selector>,
        numbers: &mut Numbers,
    ) -> Result<Classes, Exhausted> {
        let wanted: HashSet<Digest> = selectors.iter().map(|s| s.digest).collect();
        self.known.retain(|digest, _| wanted.contains(digest));
        for selector in selectors {
            self.known.entry(selector.digest).or_insert_with(|| {
                identities
                    .iter()
                    .map(|(_, identity)| selector.matches(identity))
                    .collect()
            });
        }
        let mut asked: Vec<(&Digest, &Vec<bool>)> = self.known.iter().collect();
        asked.sort_unstable_by_key(|(digest, _)| **digest);

        let mut classes = Classes::default();
        let mut by_answers: HashMap<Vec<u64>, ClassId> = HashMap::new();
        for (index, (identity, _)) in identities.iter().enumerate() {
            let bits = pack(
                asked
                    .iter()
                    .map(|(_, answers)| answers.get(index) == Some(&true)),
            );
            let class = match by_answers.get(&bits) {
                Some(class) => *class,
                None => {
                    let matched: BTreeSet<Digest> = asked
                        .iter()
                        .filter(|(_, answers)| answers.get(index) == Some(&true))
                        .map(|(digest, _)| **digest)
                        .collect();
                    let class = name(&matched, numbers)?;
                    by_answers.insert(bits, class);
                    if class != ClassId::ANY {
                        classes.list.push(Class {
                            id: class,
                            selectors: matched.into_iter().collect(),
                        });
                    }
                    class
                }
            };
            classes.of.insert(*identity, class);
        }
        Ok(classes)
    }
}

fn name(matched: &BTreeSet<Digest>, numbers: &mut Numbers) -> Result<ClassId, Exhausted> {
    if matched.is_empty() {
        return Ok(ClassId::ANY);
    }
    numbers
        .number(Space::Class, digest_of(matched))
        .map(ClassId)
}

fn pack(bits: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut words = Vec::new();
    let mut word = 0u64;
    let mut filled = 0;
    for bit in bits {
        word = (word << 1) | u64::from(bit);
        filled += 1;
        if filled == 64 {
            words.push(std::mem::take(&mut word));
            filled = 0;
        }
    }
    words.push(word);
    words
}
