//! Objects of files next to those of another source.

use std::{
    cell::RefCell, collections::BTreeMap, fs, future::pending, io, net::IpAddr, rc::Rc, sync::Arc,
    time::Instant,
};

use futures_util::future::LocalBoxFuture;
use tempfile::TempDir;

use super::*;
use crate::{
    model::DEFAULT_BUDGET,
    source::{
        FileSet, FileSource, ObjectSource, ObjectSources, Reload, Report, inventory_toml,
        last_good::Stored, policy_toml,
    },
};

const MEMORY: SourceId = SourceId {
    rank: 1,
    name: "memory",
};

/// What a source in memory has: a text for each object, which the test changes.
type Texts = Rc<RefCell<BTreeMap<String, String>>>;

/// Delivers each object by itself, and those again that contradicted others.
struct Memory {
    texts: Texts,
    /// What was delivered of each object.
    delivered: BTreeMap<String, String>,
}

impl Memory {
    fn apply(objects: &mut Objects, text: &str, is_there: bool) -> Result<(), SourceError> {
        let mut changes = ObjectChanges::default();
        let error = |message: &dyn std::fmt::Display| SourceError::whole_file(MEMORY.name, message);
        if text.starts_with("[[policy]]") {
            let read = policy_toml::parse("memory", text).map_err(|them| error(&them[0]))?;
            let policy = &read.policies[0];
            let new = is_there.then(|| Arc::clone(policy));
            changes.policies.push((policy.id(), new));
        } else {
            let read = inventory_toml::parse("memory", text).map_err(|them| error(&them[0]))?;
            let inventory = &mut changes.inventory;
            for it in read.namespaces {
                let name = it.item.name().clone();
                inventory
                    .namespaces
                    .push((name, is_there.then_some(it.item)));
            }
            for it in read.workloads {
                let id = it.item.id.clone();
                inventory.workloads.push((id, is_there.then_some(it.item)));
            }
            for it in read.nodes {
                let name = it.item.name.clone();
                let node = is_there.then(|| Arc::new(it.item));
                inventory.nodes.push((name, node));
            }
        }
        let applied = objects.apply(MEMORY, changes);
        applied.map_err(|faults| error(&faults[0]))
    }
}

impl ObjectSource for Memory {
    fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(pending())
    }

    fn reread(&mut self) {
        self.delivered
            .retain(|name, _| !self.texts.borrow().contains_key(name));
    }

    fn deliver(&mut self, objects: &mut Objects, _: Instant) -> Report {
        let (texts, mut report) = (self.texts.borrow(), Report::default());
        for (name, text) in self.delivered.clone() {
            if !texts.contains_key(&name) {
                Self::apply(objects, &text, false).unwrap();
                self.delivered.remove(&name);
            }
        }
        for (name, text) in &*texts {
            if self.delivered.get(name) == Some(text) {
                continue;
            }
            if let Some(range) = text.strip_prefix("range ") {
                report.cluster_ranges.insert(range.parse().unwrap());
                continue;
            }
            match Self::apply(objects, text, true) {
                Ok(()) => _ = self.delivered.insert(name.clone(), text.clone()),
                Err(error) => report.errors.push(error),
            }
        }
        report
    }
}

struct Setup {
    directory: TempDir,
    texts: Texts,
    sources: ObjectSources,
    last: Option<Reload>,
}

const SHOP: &str = "[[namespace]]\nname = \"shop\"\n";

fn workload(name: &str, address: &str) -> String {
    format!("[[workload]]\nname = \"{name}\"\nnamespace = \"shop\"\naddresses = [\"{address}\"]\n")
}

fn policy(name: &str, rest: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nnamespace = \"shop\"\nsubject = \"\"\n{rest}")
}

impl Setup {
    fn new(inventory: &str, policies: &str) -> Self {
        Self::with_budget(inventory, policies, DEFAULT_BUDGET)
    }

    fn with_budget(inventory: &str, policies: &str, budget: Needs) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("i.toml"), inventory).unwrap();
        fs::write(path("p.toml"), policies).unwrap();
        let (inventory, policies) = (vec![path("i.toml")], vec![path("p.toml")]);
        let loaded = FileSet::load_lenient(inventory, policies, budget, &Stored::default());
        let (files, objects, _) = loaded.unwrap();
        let texts = Texts::default();
        let memory = Memory {
            texts: Rc::clone(&texts),
            delivered: BTreeMap::new(),
        };
        let files = FileSource::watch(files).unwrap();
        let sources = ObjectSources::new(objects, vec![Box::new(files), Box::new(memory)]);
        Self {
            directory,
            texts,
            sources,
            last: None,
        }
    }

    /// Gives the source in memory another object, or takes one away.
    fn memory(&mut self, name: &str, text: Option<&str>) -> Vec<String> {
        match text {
            Some(text) => self.texts.borrow_mut().insert(name.into(), text.into()),
            None => self.texts.borrow_mut().remove(name),
        };
        self.deliver()
    }

    fn file(&mut self, name: &str, text: &str) -> Vec<String> {
        fs::write(self.directory.path().join(name), text).unwrap();
        // Reads them whether they are reported as changed yet or not, and has all delivered again.
        let reload = self.sources.deliver(true, Instant::now());
        self.take(reload)
    }

    /// The errors after a delivery of all sources.
    fn deliver(&mut self) -> Vec<String> {
        let reload = self.sources.deliver(false, Instant::now());
        self.take(reload)
    }

    fn take(&mut self, reload: Reload) -> Vec<String> {
        let prefix = format!("{}/", self.directory.path().display());
        let errors = reload.errors.iter();
        let errors = errors.map(|error| error.to_string().replace(&prefix, ""));
        let errors = errors.collect();
        self.last = Some(reload);
        errors
    }

    fn workloads(&self) -> Vec<String> {
        let inventory = &self.last.as_ref().unwrap().inventory;
        let workloads = inventory.workloads.values();
        let text = |it: &Arc<Workload>| format!("{} {}", it.id, it.addresses[0]);
        workloads.map(text).collect()
    }

    fn policies(&self) -> Vec<String> {
        let policies = &self.last.as_ref().unwrap().policies;
        let text = |it: &Arc<Policy>| {
            let rules = it.ingress.as_ref().map_or(0, Vec::len);
            format!("{} {rules}", it.id())
        };
        policies.iter().map(text).collect()
    }
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn objects_of_two_sources_are_in_force_side_by_side() {
    let mut setup = Setup::new(
        &(SHOP.to_owned() + &workload("a", "10.0.0.1")),
        &policy("p", ""),
    );
    assert_eq!(setup.deliver(), NONE);
    assert_eq!(setup.memory("b", Some(&workload("b", "10.0.0.2"))), NONE);
    let rule = "[[policy.ingress]]\n";
    assert_eq!(setup.memory("q", Some(&policy("q", rule))), NONE);
    assert!(setup.last.as_ref().unwrap().changed);
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.1", "shop/b 10.0.0.2"]);
    assert_eq!(setup.policies(), ["shop/p 0", "shop/q 1"]);
    assert_eq!(setup.deliver(), NONE);
    assert!(!setup.last.as_ref().unwrap().changed);
    // One changes its object, and each reads everything again.
    setup.memory("b", Some(&workload("b", "10.0.0.3")));
    setup.file("i.toml", &(SHOP.to_owned() + &workload("c", "10.0.0.4")));
    assert_eq!(setup.workloads(), ["shop/b 10.0.0.3", "shop/c 10.0.0.4"]);
    assert_eq!(setup.policies(), ["shop/p 0", "shop/q 1"]);
    // What the files have goes with a namespace that only they declare.
    let errors = setup.memory("b", None);
    assert_eq!(errors, NONE);
    setup.memory("q", None);
    assert_eq!(setup.workloads(), ["shop/c 10.0.0.4"]);
    assert_eq!(setup.policies(), ["shop/p 0"]);
}

#[tokio::test]
async fn ranges_of_sources_change_what_is_in_force() {
    let mut setup = Setup::new(SHOP, "");
    assert_eq!(setup.deliver(), NONE);
    let ranges = |setup: &Setup| {
        let last = setup.last.as_ref().unwrap();
        (last.cluster_ranges.len(), last.changed)
    };
    assert_eq!(ranges(&setup), (0, false), "the control");
    setup.memory("r", Some("range 10.96.0.0/16"));
    assert_eq!(ranges(&setup), (1, true));
    setup.deliver();
    assert_eq!(ranges(&setup), (1, false));
    setup.memory("r", None);
    assert_eq!(ranges(&setup), (0, true));
}

#[tokio::test]
async fn an_error_of_one_object_concerns_no_other_and_goes_with_its_cause() {
    let own = |name: &str, address: &str| workload(name, address) + "interface = \"rf-a\"\n";
    let mut setup = Setup::new(&(SHOP.to_owned() + &own("a", "10.0.0.1")), "");
    setup.memory("b", Some(&own("b", "10.0.0.2")));
    let errors = setup.memory("c", Some(&workload("c", "10.0.0.3")));
    let error = "memory: interface rf-a of workload shop/b already belongs to workload shop/a: expected \
                 one workload for each interface";
    assert_eq!(errors, [error]);
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.1", "shop/c 10.0.0.3"]);
    // The other source gives the interface up.
    let text = SHOP.to_owned() + &workload("a", "10.0.0.1");
    assert_eq!(setup.file("i.toml", &text), NONE);
    assert_eq!(setup.workloads().len(), 3);
    // Now the file may not have it, and what it said before stays.
    let both = SHOP.to_owned() + &own("a", "10.0.0.9");
    let errors = setup.file("i.toml", &both);
    assert!(
        errors
            .iter()
            .any(|it| it.starts_with("i.toml: interface rf-a of workload shop/")),
        "{errors:?}"
    );
    assert_eq!(setup.workloads()[0], "shop/a 10.0.0.1");
    assert_eq!(
        setup.memory("b", None),
        NONE,
        "and once it may, it is taken"
    );
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.9", "shop/c 10.0.0.3"]);
}

#[tokio::test]
async fn of_two_objects_of_one_name_the_files_one_is_in_force_and_the_other_follows() {
    let mut setup = Setup::new(SHOP, "");
    let one_rule = "[[policy.ingress]]\n";
    for (name, text) in [
        ("a", workload("a", "10.0.0.2")),
        ("p", policy("p", one_rule)),
    ] {
        assert_eq!(setup.memory(name, Some(&text)), NONE);
    }
    let waits = |what: &str| {
        format!(
            "memory: {what} is not in force, because files has one of that name: expected one, remove or \
             rename one"
        )
    };
    setup.file("i.toml", &(SHOP.to_owned() + &workload("a", "10.0.0.1")));
    let errors = setup.file("p.toml", &policy("p", ""));
    assert_eq!(errors, [waits("policy shop/p"), waits("workload shop/a")]);
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.1"]);
    assert_eq!(setup.policies(), ["shop/p 0"]);
    // A change of the one that waits changes nothing, nor does its source when it reads all again.
    setup.memory("a", Some(&workload("a", "10.0.0.3")));
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.1"]);
    setup.file("i.toml", SHOP);
    let errors = setup.file("p.toml", "# none\n");
    let settled = Instant::now() + std::time::Duration::from_secs(1);
    let reload = setup.sources.deliver(true, settled);
    let later = setup.take(reload);
    assert!(errors.len() <= 1 && later == NONE, "{errors:?} {later:?}");
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.3"]);
    assert_eq!(setup.policies(), ["shop/p 1"]);
    setup.memory("a", None);
    setup.memory("p", None);
    assert_eq!((setup.workloads(), setup.policies()), (vec![], vec![]));
}

#[tokio::test]
async fn one_source_gives_up_an_object_that_waits_and_the_others_stays() {
    let mut setup = Setup::new(&(SHOP.to_owned() + &workload("a", "10.0.0.1")), "");
    setup.memory("s", Some(SHOP));
    assert_eq!(setup.memory("a", Some(&workload("a", "10.0.0.2"))).len(), 2);
    assert_eq!(setup.memory("a", None).len(), 1);
    assert_eq!(setup.workloads(), ["shop/a 10.0.0.1"]);
    assert_eq!(setup.memory("s", None), NONE);
    let inventory = &setup.last.as_ref().unwrap().inventory;
    assert_eq!(inventory.namespaces.len(), 1, "still declared by the file");
}

#[tokio::test]
async fn an_address_of_objects_of_two_sources_is_unknown_and_nothing_is_locked_down() {
    let mut setup = Setup::new(&(SHOP.to_owned() + &workload("a", "10.0.0.1")), "");
    let errors = setup.memory("b", Some(&workload("b", "10.0.0.1")));
    let error = "memory: address 10.0.0.1 of workload shop/b is claimed by workload shop/a, too: \
                 expected one owner for each address";
    assert_eq!(errors, [error]);
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let last = setup.last.as_ref().unwrap();
    assert!(last.inventory.is_unknown(address) && last.locked.is_empty());
    assert_eq!(setup.workloads().len(), 2);
    // A claim that this node confirms wins, whichever source has it.
    let local = workload("b", "10.0.0.1") + "interface = \"rf-b\"\n";
    assert_eq!(setup.memory("b", Some(&local)), [error]);
    let inventory = &setup.last.as_ref().unwrap().inventory;
    assert!(inventory.is_owner(&"shop/b".parse().unwrap(), address));
    assert_eq!(setup.memory("b", None), NONE);
    assert!(!setup.last.as_ref().unwrap().inventory.is_unknown(address));
}

#[tokio::test]
async fn a_workload_of_files_in_a_namespace_of_another_source_is_no_error_once_that_is_there() {
    let mut setup = Setup::new(&workload("a", "10.0.0.1"), "");
    let unknown = |workload: &str| {
        format!(
            "workload shop/{workload} is in the unknown namespace shop: expected a [[namespace]] with that name"
        )
    };
    assert_eq!(setup.deliver(), [format!("i.toml:1:1: {}", unknown("a"))]);
    let errors = setup.memory("b", Some(&workload("b", "10.0.0.2")));
    let own = format!("memory: {}", unknown("b"));
    assert_eq!(errors, [format!("i.toml:1:1: {}", unknown("a")), own]);
    assert_eq!(setup.memory("s", Some(SHOP)), NONE);
}

#[tokio::test]
async fn the_budget_of_a_namespace_is_one_for_all_sources() {
    let budget = Needs {
        rules: 2,
        ..DEFAULT_BUDGET
    };
    let rule = "[[policy.ingress]]\n";
    let mut setup = Setup::with_budget(SHOP, &policy("m", &rule.repeat(2)), budget);
    let errors = setup.memory("a", Some(&policy("a", rule)));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("memory:1:1: policy shop/a exceeds the budget"));
    assert_eq!(setup.policies(), ["shop/m 2"]);
    assert_eq!(
        setup.last.as_ref().unwrap().locked.len(),
        1,
        "it would be open"
    );
    assert_eq!(setup.file("p.toml", &policy("m", rule)), NONE);
    assert_eq!(setup.policies(), ["shop/a 1", "shop/m 1"]);
    assert!(setup.last.as_ref().unwrap().locked.is_empty());
}
