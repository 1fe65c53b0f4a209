use super::*;
use crate::attack::families::{FAMILIES, ROUTED_FAMILIES};

/// The members' expectations and the model are written independently.
#[test]
fn members_and_model_agree() {
    let mut rng = Rng::new(7);
    let mut wrong = Vec::new();
    for family in FAMILIES.iter().chain(ROUTED_FAMILIES) {
        for (member, v6, direction) in all_variants(family) {
            for _ in 0..50 {
                let mut builder = CaseBuilder::new(&mut rng, v6, direction);
                (member.build)(&mut builder);
                let mut model = Model::default();
                for (index, sent) in builder.into_frames().iter().enumerate() {
                    let passes = model.passes(sent.direction, &sent.bytes, sent.is_segmented());
                    if passes != (sent.expect == Expect::Permitted) {
                        let name = (family.name, member.name);
                        wrong.push(format!(
                            "{name:?} v6 {v6} {direction:?}, frame {index}: {passes}"
                        ));
                    }
                }
            }
        }
    }
    wrong.sort_unstable();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_seed_repeats_its_cases() {
    for family in FAMILIES {
        let mut twice = [1, 1].map(|seed| Generator::new(*family, seed));
        for _ in 0..300 {
            let [one, other] = twice.each_mut().map(Generator::next_case);
            assert_eq!(
                (one.member, one.frames),
                (other.member, other.frames),
                "{}",
                family.name
            );
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names = std::collections::HashSet::new();
    for family in FAMILIES.iter().chain(ROUTED_FAMILIES) {
        assert!(names.insert(family.name.to_owned()), "{}", family.name);
        for member in family.members {
            let name = format!("{}: {}", family.name, member.name);
            assert!(names.insert(name.clone()), "{name}");
        }
    }
}

#[test]
fn changed_frames_are_denied_and_permitted() {
    let (mut denied, mut permitted) = (0, 0);
    for family in FAMILIES {
        let mut generator = Generator::new(*family, 3);
        for _ in 0..200 {
            let case = generator.next_case();
            match case.frames.last().map(|sent| sent.expect) {
                Some(Expect::Denied(_)) if case.mutated => denied += 1,
                Some(Expect::Permitted) if case.mutated => permitted += 1,
                _ => {}
            }
        }
    }
    assert!(
        denied > 1000 && permitted > 100,
        "{denied} denied, {permitted} permitted"
    );
}
