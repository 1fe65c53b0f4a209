//! Maps compared with the standard library's, and the parts that copies share.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;

/// Whether to insert or remove, key, value.
type Edit = (bool, u8, u8);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec((any::<bool>(), 0..60u8, 0..4u8), 0..120)
}

fn apply(map: &mut Map<u8, u8>, model: &mut BTreeMap<u8, u8>, edits: &[Edit]) {
    for (insert, key, value) in edits {
        let (replaced, expected) = if *insert {
            (map.insert(*key, *value), model.insert(*key, *value))
        } else {
            (map.remove(key), model.remove(key))
        };
        assert_eq!(replaced, expected);
        assert_eq!(map.len(), model.len());
    }
}

fn differences(
    old: &BTreeMap<u8, u8>,
    new: &BTreeMap<u8, u8>,
) -> Vec<(u8, Option<u8>, Option<u8>)> {
    (0..=u8::MAX)
        .map(|key| (key, old.get(&key).copied(), new.get(&key).copied()))
        .filter(|(_, old, new)| old != new)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_map_behaves_like_a_btree_map((first, second) in (edits(), edits())) {
        let (mut map, mut model) = (Map::new(), BTreeMap::new());
        apply(&mut map, &mut model, &first);
        let (copy, copied) = (map.clone(), model.clone());
        apply(&mut map, &mut model, &second);
        for (map, model) in [(&map, &model), (&copy, &copied)] {
            prop_assert!(map.iter().eq(model));
            for key in 0..60 {
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert!(map.from(&key).eq(model.range(key..)));
                prop_assert_eq!(map.count_below(&key), model.range(..key).count());
            }
        }

        let mut shown = Vec::new();
        map.since(&copy, |change| {
            shown.push((*change.key, change.old.copied(), change.new.copied()));
        });
        prop_assert_eq!(shown, differences(&copied, &model));
        prop_assert_eq!(map == copy, model == copied);

        // Built at once or edit by edit, it is the same tree.
        let built: Map<u8, u8> = model.iter().map(|(key, value)| (*key, *value)).collect();
        prop_assert_eq!(&built, &map);
        prop_assert!(map.based_on(&copy).iter().eq(&model));
        let back = map.based_on(&map.clone());
        prop_assert!(back.is_same(&map));
    }
}

#[test]
fn the_last_of_equal_keys_is_kept() {
    let map: Map<u8, u8> = [(1, 1), (2, 2), (1, 3), (1, 4)].into();
    assert!(map.iter().eq(&BTreeMap::from([(1, 4), (2, 2)])));
}

#[test]
fn a_comparison_only_compares_changed_parts() {
    use std::cell::Cell;

    thread_local!(static COMPARED: Cell<usize> = const { Cell::new(0) });
    #[derive(Clone)]
    struct Counted(u32);
    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }

    let before: Map<u32, Counted> = (0..10_000).map(|n| (n, Counted(n))).collect();
    let mut after = before.clone();
    after.insert(5000, Counted(1));
    after.insert(20_000, Counted(2));
    after.remove(&7);
    let mut shown = Vec::new();
    after.since(&before, |change| shown.push(*change.key));
    assert_eq!(shown, [7, 5000, 20_000]);
    assert!(COMPARED.get() < 500, "{} values compared", COMPARED.get());
}

/// The number of entries that two maps share in memory.
fn shared(map: &Map<u32, u32>, other: &Map<u32, u32>) -> usize {
    let both = map.iter().zip(other.iter());
    both.filter(|(one, two)| std::ptr::eq(one.1, two.1)).count()
}

#[test]
fn unchanged_parts_are_shared_if_few_entries_have_changed() {
    let before: Map<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
    for (every, shares) in [(1000, true), (9, true), (7, false), (1, false)] {
        let changed = |n: u32| if n.is_multiple_of(every) { n + 1 } else { n };
        let after: Map<u32, u32> = (0..10_000).map(|n| (n, changed(n))).collect();
        assert_eq!(shared(&after, &before), 0, "built separately");
        let based = after.based_on(&before);
        assert_eq!(based, after);
        assert_eq!(
            shared(&based, &before) > 0,
            shares,
            "one entry in {every} changed"
        );
    }
}
