//! Which content is in force when files change, break, conflict, are deleted and are restored.

mod contents;
mod contested;
mod editors;
mod entries;
mod last_good;
mod lockdown;

use std::fs;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

use crate::model::{Inventory, PolicySet};
use crate::source::inventory_errors::source_error;
use crate::source::last_good::Refused;
use crate::source::tracked_files::SETTLE;

const SHOP: &str = "[[namespace]]\nname = \"shop\"\n";

fn policy(name: &str, rest: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nnamespace = \"shop\"\nsubject = \"\"\n{rest}")
}

fn workload(name: &str, address: &str) -> String {
    format!("[[workload]]\nname = \"{name}\"\nnamespace = \"shop\"\naddresses = [\"{address}\"]\n")
}

/// Files, and their objects.
#[derive(Debug)]
struct Files {
    set: FileSet,
    objects: Objects,
}

impl Files {
    fn load_strict(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
    ) -> Result<(Self, Reload), Vec<SourceError>> {
        let (stored, mut objects) = (Stored::default(), Objects::new(DEFAULT_BUDGET));
        FileSet::load_strict(inventory.clone(), policies.clone())?;
        let (set, reload) = FileSet::load(inventory, policies, &mut objects, &stored, true);
        Ok((Self { set, objects }, reload))
    }

    fn load_lenient(
        inventory: Vec<PathBuf>,
        policies: Vec<PathBuf>,
        budget: Needs,
        stored: &Stored,
    ) -> Result<(Self, Reload), Vec<SourceError>> {
        let loaded = FileSet::load_lenient(inventory, policies, budget, stored);
        loaded.map(|(set, objects, reload)| (Self { set, objects }, reload))
    }

    fn inventory(&self) -> &Arc<Inventory> {
        self.objects.inventory()
    }

    fn policies(&self) -> &Arc<PolicySet> {
        self.objects.policies()
    }

    fn reload(&mut self, now: Instant, being_written: impl FnOnce() -> BTreeSet<FileId>) -> Reload {
        self.set.reload(&mut self.objects, now, being_written)
    }

    fn reload_now(&mut self) -> Reload {
        self.reload(Instant::now(), BTreeSet::new)
    }

    /// A reload at a time when everything that was gone at the last one is removed.
    fn reload_later(&mut self) -> Reload {
        self.reload(Instant::now() + SETTLE, BTreeSet::new)
    }
}

struct Setup {
    directory: TempDir,
    set: Files,
}

impl Setup {
    /// A directory with `i/*.toml` as inventory and `p/*.toml` as policies.
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        for kind in ["i", "p"] {
            fs::create_dir(directory.path().join(kind)).unwrap();
        }
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let paths = |kind: &str| vec![directory.path().join(kind)];
        let (set, reload) = Files::load_strict(paths("i"), paths("p")).unwrap();
        assert_eq!(reload.errors, []);
        Self { directory, set }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let temporary = self.path("temporary");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.set
            .policies()
            .policies
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    fn workloads(&self) -> Vec<String> {
        self.set
            .inventory()
            .workloads
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// The only error of a reload, without the directory's name; errors about lockdown are ignored.
    fn refusal(&mut self) -> String {
        self.refusal_at(Instant::now())
    }

    fn refusal_at(&mut self, now: Instant) -> String {
        let mut errors = self.set.reload(now, BTreeSet::new).errors;
        errors.retain(|error| !error.message.starts_with(REFUSED));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let prefix = format!("{}/", self.directory.path().display());
        errors[0].to_string().replace(&prefix, "")
    }
}

#[test]
fn a_reload_without_changes_keeps_both_pointers() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    let before = (setup.set.inventory().clone(), setup.set.policies().clone());
    setup.write("p/a.toml", &policy("a", "# only a comment\n"));
    let reload = setup.set.reload_now();
    assert!(!reload.changed);
    assert!(Arc::ptr_eq(&before.0, &reload.inventory));
    assert!(Arc::ptr_eq(&before.1, &reload.policies));
}

#[test]
fn only_the_changed_one_of_inventory_and_policies_gets_a_new_pointer() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    let before = (setup.set.inventory().clone(), setup.set.policies().clone());
    setup.write("p/a.toml", &policy("b", ""));
    let reload = setup.set.reload_now();
    assert!(reload.changed && Arc::ptr_eq(&before.0, &reload.inventory));
    assert_eq!(setup.names(), ["shop/b"]);

    let policies = reload.policies;
    setup.write("i/a.toml", &format!("{SHOP}{}", workload("w", "10.0.0.1")));
    let reload = setup.set.reload_now();
    assert!(reload.changed && Arc::ptr_eq(&policies, &reload.policies));
    assert_eq!(setup.workloads(), ["shop/w"]);
}

#[test]
fn unchanged_values_of_a_changed_file_are_shared() {
    let workloads =
        |last: &str| format!("{SHOP}{}{}", workload("w", "10.0.0.1"), workload("x", last));
    let policies = |last: &str| format!("{}{}", policy("a", ""), policy("b", last));
    let mut setup = Setup::new(&[
        ("i/a.toml", &workloads("10.0.0.2")),
        ("p/a.toml", &policies("")),
    ]);
    let before = (setup.set.inventory().clone(), setup.set.policies().clone());
    setup.write("i/a.toml", &workloads("10.0.0.3"));
    setup.write("p/a.toml", &policies("ingress = []\n"));
    let after = setup.set.reload_now();
    let namespaces = &after.inventory.namespaces;
    assert!(before.0.namespaces.is_same(namespaces));
    let old = before.0.workloads.values();
    let same: Vec<bool> = old
        .zip(after.inventory.workloads.values())
        .map(|(old, new)| Arc::ptr_eq(old, new))
        .collect();
    assert_eq!(same, [true, false]);
    let same: Vec<bool> = before
        .1
        .iter()
        .zip(after.policies.iter())
        .map(|(old, new)| Arc::ptr_eq(old, new))
        .collect();
    assert_eq!(same, [true, false]);
}

#[test]
fn a_file_rewritten_in_place_within_one_clock_tick_is_reread() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a0", ""))]);
    for round in 1..10 {
        let name = format!("a{round}");
        fs::write(setup.path("p/a.toml"), policy(&name, "")).unwrap();
        setup.set.reload_now();
        assert_eq!(setup.names(), [format!("shop/{name}")]);
    }
}

#[test]
fn a_bad_file_keeps_its_last_good_content_and_does_not_affect_others() {
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("p/a.toml", &policy("a", "")),
        ("p/b.toml", &policy("b", "")),
    ]);
    setup.write("p/a.toml", "[[policy]]\nname = 1");
    setup.write("p/b.toml", &policy("c", ""));
    let refusal = "p/a.toml:2:8: invalid type: integer `1`, expected a string";
    assert_eq!(setup.refusal(), refusal);
    assert_eq!(setup.names(), ["shop/a", "shop/c"]);
    assert_eq!(setup.refusal(), refusal, "reported until it is fixed");

    setup.write("p/a.toml", &policy("a2", ""));
    let reload = setup.set.reload_now();
    assert_eq!((reload.errors, reload.changed), (vec![], true));
    assert_eq!(setup.names(), ["shop/a2", "shop/c"]);
}

#[test]
fn restoring_the_last_good_content_clears_the_error() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    setup.write("p/a.toml", "x");
    assert_eq!(setup.set.reload_now().errors.len(), 1);
    setup.write("p/a.toml", &policy("a", ""));
    let reload = setup.set.reload_now();
    assert_eq!((reload.errors, reload.changed), (vec![], false));
}

#[test]
fn a_new_bad_file_has_no_content() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP)]);
    setup.write("p/a.toml", "x");
    assert!(!setup.refusal().is_empty());
    fs::remove_file(setup.path("p/a.toml")).unwrap();
    assert_eq!(setup.set.reload_now().errors, []);
}

#[test]
fn the_content_of_a_deleted_file_is_removed_and_can_be_restored() {
    let text = policy("a", "");
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &text)]);
    fs::remove_file(setup.path("p/a.toml")).unwrap();
    setup.set.reload_now();
    let reload = setup.set.reload_later();
    assert_eq!((reload.errors, reload.changed), (vec![], true));
    assert!(setup.names().is_empty());
    setup.write("p/a.toml", &text);
    setup.set.reload_now();
    assert_eq!(setup.names(), ["shop/a"]);
}

#[test]
fn a_changed_file_that_reuses_a_name_is_refused() {
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("p/a.toml", &policy("a", "")),
        ("p/b.toml", &policy("b", "")),
    ]);
    setup.write("p/b.toml", &policy("a", ""));
    setup.write("p/c.toml", &policy("c", ""));
    assert_eq!(
        setup.refusal(),
        "p/b.toml:1:1: policy shop/a at p/b.toml:1 is already declared at p/a.toml:1: expected \
         one, rename or remove one"
    );
    assert_eq!(setup.names(), ["shop/a", "shop/b", "shop/c"]);
    setup.write("p/a.toml", &policy("z", ""));
    assert_eq!(
        setup.set.reload_now().errors,
        [],
        "the refused file is tried again"
    );
    assert_eq!(setup.names(), ["shop/a", "shop/c", "shop/z"]);
}

#[test]
fn names_can_move_between_files_in_one_reload() {
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("p/a.toml", &policy("a", "")),
        ("p/b.toml", &policy("b", "")),
    ]);
    setup.write("p/a.toml", &policy("b", ""));
    setup.write("p/b.toml", &policy("a", ""));
    assert_eq!(setup.set.reload_now().errors, []);
    assert_eq!(setup.names(), ["shop/a", "shop/b"]);
}

#[test]
fn an_error_about_an_address_conflict_names_both_places() {
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("i/b.toml", &workload("b", "10.0.0.1")),
        ("i/c.toml", ""),
    ]);
    setup.write("i/c.toml", &workload("c", "10.0.0.1"));
    assert_eq!(
        setup.refusal(),
        "i/c.toml:1:1: address 10.0.0.1 of workload shop/c is claimed by workload shop/b, too: \
         expected one owner for each address (the other is at i/b.toml:1)"
    );
    assert_eq!(setup.workloads(), ["shop/b"]);
    setup.write("i/b.toml", &workload("b", "10.0.0.2"));
    assert_eq!(setup.set.reload_now().errors, []);
    assert_eq!(setup.workloads(), ["shop/b", "shop/c"]);
}

#[test]
fn a_namespace_in_use_is_not_removed() {
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("i/b.toml", &workload("b", "10.0.0.1")),
        ("p/a.toml", &policy("a", "")),
    ]);
    fs::remove_file(setup.path("i/a.toml")).unwrap();
    setup.write("i/c.toml", &workload("c", "10.0.0.3"));
    setup.set.reload_now();
    assert!(!setup.set.reload_later().errors.is_empty());
    assert_eq!(setup.set.inventory().namespaces.len(), 1);
    assert_eq!(setup.names(), ["shop/a"]);
    setup.write("i/a.toml", SHOP);
    assert_eq!(setup.set.reload_now().errors, []);
    assert_eq!(setup.workloads(), ["shop/b", "shop/c"]);
}

#[test]
fn a_policy_is_refused_until_its_namespace_is_declared() {
    let mut setup = Setup::new(&[("i/a.toml", "")]);
    setup.write("p/a.toml", &policy("a", ""));
    assert_eq!(
        setup.refusal(),
        "p/a.toml:1:1: policy shop/a is for the unknown namespace shop: expected a \
         [[namespace]] with that name in the inventory"
    );
    setup.write("i/a.toml", SHOP);
    assert_eq!(setup.set.reload_now().errors, []);
    assert_eq!(setup.names(), ["shop/a"]);
}

#[test]
fn the_strict_first_load_is_all_or_nothing() {
    let directory = TempDir::new().unwrap();
    let (good, bad) = (
        directory.path().join("good.toml"),
        directory.path().join("bad.toml"),
    );
    fs::write(&good, policy("a", "")).unwrap();
    fs::write(&bad, "x").unwrap();
    assert_eq!(
        Files::load_strict(vec![], vec![good.clone(), bad])
            .unwrap_err()
            .len(),
        1
    );
    let missing = directory.path().join("missing.toml");
    let errors = Files::load_strict(vec![], vec![missing]).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .contains("missing.toml: cannot be read"),
        "{errors:?}"
    );
    let (set, reload) = Files::load_strict(vec![], vec![good]).unwrap();
    assert!(reload.changed);
    assert_eq!(set.policies().len(), 1);
}

#[test]
fn subdirectories_hidden_files_and_other_extensions_are_ignored() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    fs::create_dir(setup.path("p/sub.toml")).unwrap();
    setup.write("p/sub.toml/b.toml", &policy("b", ""));
    setup.write("p/notes.txt", "x");
    setup.write("p/.hidden.toml", "x");
    let reload = setup.set.reload_now();
    assert_eq!((reload.errors, reload.changed), (vec![], false));
}

#[test]
fn a_directory_that_cannot_be_read_keeps_its_files() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP), ("p/a.toml", &policy("a", ""))]);
    fs::rename(setup.path("p"), setup.path("elsewhere")).unwrap();
    setup.set.reload_now();
    assert!(
        setup
            .refusal_at(Instant::now() + SETTLE)
            .starts_with("p: cannot be read: No such file or directory")
    );
    assert_eq!(setup.names(), ["shop/a"]);
    fs::rename(setup.path("elsewhere"), setup.path("p")).unwrap();
    assert_eq!(setup.set.reload_now().errors, []);
}

#[test]
fn a_small_policy_change_is_fast_with_a_large_inventory() {
    use std::fmt::Write;
    let mut inventory = SHOP.to_owned();
    for index in 0..10_000 {
        let (high, low) = (index / 250, index % 250 + 1);
        write!(
            inventory,
            "{}",
            workload(&format!("w{index}"), &format!("10.9.{high}.{low}"))
        )
        .unwrap();
    }
    let mut setup = Setup::new(&[("i/a.toml", &inventory), ("p/a.toml", &policy("a", ""))]);
    std::thread::sleep(std::time::Duration::from_millis(150));
    setup.set.reload_now();
    let best = (0..10).map(|round| {
        setup.write(
            "p/a.toml",
            &policy(&format!("a{round}"), "[[policy.ingress]]\n"),
        );
        let start = Instant::now();
        assert!(setup.set.reload_now().changed);
        start.elapsed()
    });
    let best = best.min().unwrap();
    println!("policy change with 10,000 workloads: {best:?}");
    assert!(best.as_millis() < 10, "{best:?}");
}

#[test]
fn a_configured_file_that_disappears_keeps_its_content_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.toml");
    let policies = dir.path().join("policies.toml");
    fs::write(&inventory, SHOP).unwrap();
    fs::write(&policies, policy("a", "")).unwrap();
    let (mut set, _) = Files::load_strict(vec![inventory], vec![policies.clone()]).unwrap();
    fs::remove_file(&policies).unwrap();
    let reload = set.reload_now();
    assert_eq!(reload.errors, [], "an editor may be replacing it");
    let reload = set.reload_later();
    assert!(
        reload.errors[0].to_string().contains("cannot be read"),
        "{:?}",
        reload.errors
    );
    assert_eq!(
        reload.policies.len(),
        1,
        "a missing file must not allow what its policies deny"
    );
    fs::write(&policies, "").unwrap();
    set.reload_now();
    let reload = set.reload_later();
    assert!(reload.errors.is_empty() && reload.policies.is_empty());
}
