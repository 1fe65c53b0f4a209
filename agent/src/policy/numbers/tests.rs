use super::*;

/// Frees what is not in use, as after a grace period without a holder.
fn free_all_but(numbers: &mut Numbers, space: Space, in_use: &HashSet<u32>) {
    numbers.retire_unused(space, in_use, 1);
    let due = numbers.retired_since(space, 1);
    numbers.free(space, due);
}

#[test]
fn a_content_keeps_its_number_across_a_restart() {
    let mut first = Numbers::default();
    let a = first.number(Space::Class, Digest(1)).unwrap();
    let b = first.number(Space::Class, Digest(2)).unwrap();
    assert_ne!(a, b);
    assert_eq!(first.fresh().len(), 2);

    let mut second = Numbers::default();
    second.restore(first.fresh().to_vec());
    assert_eq!(second.number(Space::Class, Digest(2)).unwrap(), b);
    let c = second.number(Space::Class, Digest(3)).unwrap();
    assert!(c != a && c != b);
}

#[test]
fn allocations_stay_fresh_until_they_are_written_down() {
    let mut numbers = Numbers::default();
    numbers.number(Space::Class, Digest(1)).unwrap();
    numbers.number(Space::Rule, Digest(1)).unwrap();
    assert_eq!(numbers.fresh().len(), 2);
    assert_eq!(numbers.fresh().len(), 2);
    numbers.written();
    assert!(numbers.fresh().is_empty());
}

#[test]
fn of_two_contents_with_one_number_the_later_has_it() {
    let of = |digest, number| Allocation {
        space: Space::Rule,
        digest: Digest(digest),
        number,
    };
    let mut numbers = Numbers::default();
    numbers.restore([of(1, 20), of(2, 20), of(3, 21), of(3, 22), of(4, 21)]);
    assert_eq!(numbers.number(Space::Rule, Digest(2)).unwrap(), 20);
    assert_eq!(numbers.number(Space::Rule, Digest(3)).unwrap(), 22);
    assert_eq!(numbers.number(Space::Rule, Digest(4)).unwrap(), 21);
    let new = numbers.number(Space::Rule, Digest(1)).unwrap();
    assert!(![20, 21, 22].contains(&new), "{new} is taken");
}

#[test]
fn a_number_found_in_a_map_is_not_handed_out() {
    let mut numbers = Numbers::default();
    numbers.reserve(Space::Namespace, 1..=5);
    assert_eq!(numbers.number(Space::Namespace, Digest(9)).unwrap(), 6);
}

#[test]
fn a_full_space_is_an_error_and_freed_numbers_are_reused() {
    let mut numbers = Numbers::default();
    numbers.reserve(Space::Namespace, 2..maps::NAMESPACES);
    let only = numbers.number(Space::Namespace, Digest(1)).unwrap();
    assert!(numbers.number(Space::Namespace, Digest(2)).is_err());
    let others = (2..maps::NAMESPACES).collect();
    free_all_but(&mut numbers, Space::Namespace, &others);
    assert_eq!(numbers.number(Space::Namespace, Digest(2)).unwrap(), only);
}

#[test]
fn a_table_number_is_never_given_twice() {
    let mut numbers = Numbers::default();
    let mut given = HashSet::new();
    for content in 0..100 {
        let number = numbers.number(Space::Table, Digest(content)).unwrap();
        assert!(given.insert(number), "{number} was given before");
        free_all_but(&mut numbers, Space::Table, &HashSet::new());
        // As found in a map, and a restart.
        numbers.reserve(Space::Table, [number]);
        free_all_but(&mut numbers, Space::Table, &HashSet::new());
        if content % 10 == 0 {
            let next = numbers.next_table();
            numbers = Numbers::default();
            numbers.skip_tables_below(next);
        }
    }
    numbers.skip_tables_below(u32::MAX);
    let error = numbers.number(Space::Table, Digest(1000)).unwrap_err();
    assert!(error.to_string().contains("cleanup"), "{error}");
}

#[test]
fn a_number_waits_from_the_first_time_that_nothing_refers_to_it() {
    let mut numbers = Numbers::default();
    let [a, b] = [1, 2].map(|c| numbers.number(Space::Rule, Digest(c)).unwrap());
    let set = |all: &[u32]| all.iter().copied().collect::<HashSet<u32>>();
    numbers.retire_unused(Space::Rule, &set(&[b]), 10);
    numbers.retire_unused(Space::Rule, &set(&[]), 20);
    assert_eq!(numbers.retired_since(Space::Rule, 9), set(&[]));
    assert_eq!(numbers.retired_since(Space::Rule, 10), set(&[a]));
    assert_eq!(numbers.retired_since(Space::Rule, 20), set(&[a, b]));
    // In use again, so the wait starts over.
    numbers.retire_unused(Space::Rule, &set(&[a]), 30);
    numbers.retire_unused(Space::Rule, &set(&[]), 40);
    assert_eq!(numbers.retired_since(Space::Rule, 39), set(&[b]));
}

#[test]
fn a_content_that_comes_back_keeps_its_number_from_being_freed() {
    let mut numbers = Numbers::default();
    let number = numbers.number(Space::Identity, Digest(1)).unwrap();
    numbers.retire_unused(Space::Identity, &HashSet::new(), 10);
    let due = numbers.retired_since(Space::Identity, 10);
    assert_eq!(due.len(), 1);
    // While the kernel's maps are walked.
    assert_eq!(
        numbers.number(Space::Identity, Digest(1)).unwrap(),
        number,
        "the content is still recorded"
    );
    numbers.free(Space::Identity, due);
    assert_eq!(numbers.count(), 1, "the content still has it");
}

#[test]
fn a_freed_allocation_is_not_written_down_any_more() {
    let mut numbers = Numbers::default();
    numbers.number(Space::Rule, Digest(1)).unwrap();
    free_all_but(&mut numbers, Space::Rule, &HashSet::new());
    assert_eq!((numbers.fresh(), numbers.count()), (&[][..], 0));
}

#[test]
fn identities_of_the_node_have_pairs_of_numbers_and_no_others_have_these() {
    let first = ringfence_common::ids::IdentityId::FIRST_NODE.0;
    let mut numbers = Numbers::default();
    let node = numbers.node_number(Digest(1)).unwrap();
    let other = numbers.node_number(Digest(2)).unwrap();
    assert_eq!((node, other), (first, first + 2));
    assert_eq!(numbers.node_number(Digest(1)).unwrap(), node);
    let mut restored = Numbers::default();
    // One of an earlier version, in each range.
    let before = [(1, 40), (3, first + 4)].map(|(content, number)| Allocation {
        space: Space::Identity,
        digest: Digest(content),
        number,
    });
    restored.restore(before);
    let node = restored.node_number(Digest(1)).unwrap();
    assert!(node >= first && node != first + 4, "{node}");
    assert!(restored.number(Space::Identity, Digest(3)).unwrap() < first);
    // Both numbers must be free.
    let mut held = Numbers::default();
    held.reserve(Space::Identity, [first + 1]);
    assert_eq!(held.node_number(Digest(1)).unwrap(), first + 2);
}

#[test]
fn restored_numbers_that_are_no_pairs_lose_their_contents() {
    let first = ringfence_common::ids::IdentityId::FIRST_NODE.0;
    let of = |content, number| Allocation {
        space: Space::Identity,
        digest: Digest(content),
        number,
    };
    let before = [
        of(1, first + 1),
        of(2, first + 4),
        of(3, first + 5),
        of(4, first + 8),
        of(5, maps::IDENTITIES + 6),
    ];
    for first_asked in [2, 3] {
        let mut numbers = Numbers::default();
        numbers.restore(before);
        if first_asked == 3 {
            assert!(numbers.number(Space::Identity, Digest(3)).unwrap() < first);
        }
        let held: HashSet<u32> = before.iter().map(|it| it.number).collect();
        for content in [1, 2, 3, 5] {
            let node = numbers.node_number(Digest(content)).unwrap();
            let is_new = !held.contains(&node) && !held.contains(&(node + 1));
            assert!(
                is_new && (first..maps::IDENTITIES).contains(&node),
                "{node}"
            );
        }
        assert_eq!(numbers.node_number(Digest(4)).unwrap(), first + 8);
    }
}

#[test]
fn a_number_that_a_content_gave_up_is_not_given_out_after_a_restart() {
    let first = ringfence_common::ids::IdentityId::FIRST_NODE.0;
    let of = |content, number| Allocation {
        space: Space::Identity,
        digest: Digest(content),
        number,
    };
    let mut numbers = Numbers::default();
    numbers.restore([of(1, 20), of(1, first)]);
    for content in 2..12 {
        let number = numbers.number(Space::Identity, Digest(content)).unwrap();
        assert_ne!(number, 20, "the kernel may hold it");
    }
    assert_eq!(numbers.node_number(Digest(1)).unwrap(), first);
    // Until nothing holds it.
    let in_use: HashSet<u32> = numbers.all().map(|it| it.number).collect();
    numbers.retire_unused(Space::Identity, &in_use, 1);
    assert!(numbers.retired_since(Space::Identity, 1).contains(&20));
}

#[test]
fn pairs_that_are_all_taken_have_an_error_of_their_own() {
    let mut numbers = Numbers::default();
    for content in 0..4096 {
        numbers.node_number(Digest(content)).unwrap();
    }
    let full = numbers.node_number(Digest(5000)).unwrap_err();
    assert_eq!(full, Exhausted::NodePairs { limit: 4096 });
    let text = full.to_string();
    assert!(text.contains("reduce the number of prefixes"), "{text}");
    numbers.number(Space::Identity, Digest(5000)).unwrap();
}
