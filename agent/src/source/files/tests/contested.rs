//! An agent takes what files say, entry by entry, though one entry contradicts others.

use super::*;

impl Setup {
    /// The same files, as an agent reads them.
    pub(super) fn of_an_agent(files: &[(&str, &str)]) -> Self {
        Self::with_budget(files, DEFAULT_BUDGET)
    }

    fn with_budget(files: &[(&str, &str)], budget: Needs) -> Self {
        let Self { directory, .. } = Self::new(files);
        let paths = |kind: &str| vec![directory.path().join(kind)];
        let (set, reload) =
            Files::load_lenient(paths("i"), paths("p"), budget, &Stored::default()).unwrap();
        assert_eq!(reload.errors, []);
        Self { directory, set }
    }
}

fn texts(errors: &[SourceError]) -> Vec<String> {
    let name = |error: &SourceError| {
        let file = error.file.rsplit('/').next().unwrap();
        format!("{file}:{}: {}", error.line, error.message)
    };
    errors.iter().map(name).collect()
}

#[test]
fn an_inventory_changes_though_a_policy_is_for_a_namespace_that_is_gone() {
    let mut setup = Setup::of_an_agent(&[
        ("i/a.toml", SHOP),
        ("i/ghost.toml", "[[namespace]]\nname = \"ghost\"\n"),
        (
            "p/a.toml",
            "[[policy]]\nname = \"a\"\nnamespace = \"ghost\"\nsubject = \"\"\n",
        ),
    ]);
    fs::remove_file(setup.path("i/ghost.toml")).unwrap();
    setup.write("i/b.toml", &workload("b", "10.0.0.1"));
    setup.set.reload_now();
    let reload = setup.set.reload_later();
    assert_eq!(reload.errors, []);
    assert_eq!(setup.workloads(), ["shop/b"]);
    assert_eq!(setup.names(), ["ghost/a"], "it has no subjects");
    let warning = "a.toml:1: policy ghost/a is for the unknown namespace ghost: expected a \
                   [[namespace]] with that name in the inventory; until then it has no subjects";
    assert_eq!(texts(&reload.warnings), [warning]);
    setup.write("i/c.toml", &workload("c", "10.0.0.2"));
    assert_eq!(
        texts(&setup.set.reload_now().warnings),
        [warning],
        "it lasts"
    );
    assert_eq!(setup.workloads(), ["shop/b", "shop/c"]);
    setup.write("i/ghost.toml", "[[namespace]]\nname = \"ghost\"\n");
    assert_eq!(setup.set.reload_now().warnings, []);
}

#[test]
fn a_workload_of_an_undeclared_namespace_is_taken_with_one_without_labels() {
    let mut setup = Setup::of_an_agent(&[("i/a.toml", SHOP)]);
    let lost = "[[workload]]\nname = \"x\"\nnamespace = \"ghost\"\naddresses = [\"10.0.0.9\"]\n";
    setup.write("i/b.toml", &(workload("b", "10.0.0.1") + lost));
    let reload = setup.set.reload_now();
    assert_eq!(
        texts(&reload.errors),
        [
            "b.toml:5: workload ghost/x is in the unknown namespace ghost: expected a [[namespace]] \
             with that name"
        ]
    );
    assert_eq!(setup.workloads(), ["ghost/x", "shop/b"]);
    assert_eq!(setup.set.inventory().namespaces.len(), 2);
    setup.write("i/ghost.toml", "[[namespace]]\nname = \"ghost\"\n");
    assert_eq!(setup.set.reload_now().errors, []);
}

#[test]
fn an_error_about_an_entry_has_the_line_that_it_has_now() {
    let mut setup =
        Setup::of_an_agent(&[("i/a.toml", SHOP), ("i/b.toml", &workload("b", "10.0.0.1"))]);
    let claim = workload("c", "10.0.0.1");
    let mut line = |text: &str| {
        setup.write("i/c.toml", text);
        let errors = setup.set.reload_now().errors;
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].line
    };
    assert_eq!(line(&claim), 1);
    let below = workload("d", "10.0.0.4") + &claim;
    assert_eq!(line(&below), 5);
    assert_eq!(line(&format!("# moved\n{below}")), 6);
}

#[test]
fn an_address_that_two_claim_is_nobodys_and_other_changes_are_taken() {
    let mut setup =
        Setup::of_an_agent(&[("i/a.toml", SHOP), ("i/b.toml", &workload("b", "10.0.0.1"))]);
    let address = "10.0.0.1".parse().unwrap();
    setup.write("i/c.toml", &workload("c", "10.0.0.1"));
    setup.write("i/d.toml", &workload("d", "10.0.0.4"));
    let error = "c.toml:1: address 10.0.0.1 of workload shop/c is claimed by workload shop/b, too: \
                 expected one owner for each address (the other is at ";
    let first = setup.set.reload_now();
    assert!(texts(&first.errors)[0].starts_with(error), "{first:?}");
    assert_eq!(first.errors.len(), 1);
    assert_eq!(setup.workloads(), ["shop/b", "shop/c", "shop/d"]);
    assert!(setup.set.inventory().is_unknown(address));
    assert_eq!(setup.set.reload_now().errors, first.errors, "it lasts");
    // One of them runs on this node.
    let local = workload("c", "10.0.0.1") + "interface = \"rf-c\"\n";
    setup.write("i/c.toml", &local);
    assert_eq!(setup.set.reload_now().errors.len(), 1);
    assert!(!setup.set.inventory().is_unknown(address));
    assert!(
        setup
            .set
            .inventory()
            .is_owner(&"shop/c".parse().unwrap(), address)
    );
    fs::remove_file(setup.path("i/b.toml")).unwrap();
    setup.set.reload_now();
    assert_eq!(setup.set.reload_later().errors, []);
    assert_eq!(setup.workloads(), ["shop/c", "shop/d"]);
}

#[test]
fn of_many_errors_the_first_are_listed() {
    let mut setup = Setup::of_an_agent(&[("i/a.toml", SHOP)]);
    let many: String = (0..300)
        .map(|number| workload(&format!("w{number}"), &format!("10.0.{}.1", number / 2)))
        .collect();
    setup.write("i/b.toml", &many);
    let errors = setup.set.reload_now().errors;
    assert_eq!(errors.len(), 100);
    assert!(errors[99].message.ends_with("(and 50 more such errors)"));
    assert_eq!(setup.workloads().len(), 300);
}

#[test]
fn a_policy_beyond_the_budget_of_its_namespace_does_not_hold_back_others() {
    let rules = "[[policy.ingress]]\n";
    let budget = Needs {
        rules: 3,
        ..DEFAULT_BUDGET
    };
    let mut setup = Setup::with_budget(
        &[
            ("i/a.toml", SHOP),
            ("p/m.toml", &policy("m", &rules.repeat(2))),
        ],
        budget,
    );
    let both = policy("a", &rules.repeat(2)) + &policy("b", rules);
    setup.write("p/a.toml", &both);
    let reload = setup.set.reload_now();
    let errors = texts(&reload.errors);
    assert!(
        errors[0].starts_with("a.toml:1: policy shop/a exceeds the budget"),
        "{errors:?}"
    );
    assert_eq!(errors.len(), 1);
    assert_eq!(setup.names(), ["shop/b", "shop/m"]);
    assert_eq!(texts(&setup.set.reload_now().errors), errors, "it lasts");
    let locked = |reload: &Reload| -> Vec<String> {
        let origins = reload.locked.iter().map(|it| it.origin.to_string());
        origins
            .filter_map(|it| Some(it.rsplit_once('/')?.1.to_owned()))
            .collect()
    };
    assert_eq!(locked(&reload), ["a.toml:1"], "its subjects would be open");
    // Of one that grows, the version in force stays, which needs no lockdown.
    setup.write("p/m.toml", &policy("m", &rules.repeat(3)));
    let grown = setup.set.reload_now();
    assert_eq!(grown.errors.len(), 2, "{:?}", grown.errors);
    assert_eq!(locked(&grown), ["a.toml:1"]);
    fs::remove_file(setup.path("p/m.toml")).unwrap();
    setup.write("p/z.toml", "");
    setup.set.reload_now();
    let within = setup.set.reload_later();
    assert_eq!(within.errors, []);
    assert_eq!(locked(&within), [""; 0]);
}
