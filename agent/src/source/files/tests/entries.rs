//! Files that change entry by entry: the inventory is the one that is built of what is in force.

use std::cell::Cell;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::oracle::cases;

/// Entries with names, addresses and interfaces that are soon the same as others'.
fn entry() -> impl Strategy<Value = String> {
    let namespace = (select(vec!["a", "b", "c"]), 0..2_u8).prop_map(|(name, label)| {
        format!("[[namespace]]\nname = \"{name}\"\nlabels = {{ l = \"{label}\" }}\n")
    });
    let addresses = || subsequence(vec!["10.0.0.1", "10.0.0.2", "fd00::1"], 0..=2);
    let interface = prop_oneof![5 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let workload = (
        select(vec!["a", "b"]),
        0..30_u8,
        addresses(),
        0..2_u8,
        interface,
    );
    let workload = workload.prop_map(|(namespace, name, addresses, label, interface)| {
        let mut text = format!(
            "[[workload]]\nname = \"w{name}\"\nnamespace = \"{namespace}\"\n\
             addresses = {addresses:?}\nlabels = {{ l = \"{label}\" }}\n"
        );
        if let Some(number) = interface {
            writeln!(text, "interface = \"v{number}\"").unwrap();
        }
        text
    });
    let node = (0..20_u8, addresses()).prop_map(|(name, addresses)| {
        format!("[[node]]\nname = \"n{name}\"\naddresses = {addresses:?}\n")
    });
    prop_oneof![1 => namespace, 6 => workload, 1 => node]
}

/// A file, the entries that it keeps, and its new ones; `None` if it is gone.
type Edit = (usize, Option<(Vec<bool>, Vec<String>)>);

/// Another content for a file: some entries stay, others come; or the file is gone.
fn edit() -> impl Strategy<Value = Edit> {
    (
        0..4_usize,
        of((vec(prop::bool::weighted(0.8), 8), vec(entry(), 0..4))),
    )
}

/// What is in force, built as a whole, and what is wrong with it.
fn built(set: &Files) -> (Inventory, Vec<SourceError>) {
    let files = set.set.inventory_files.files.iter();
    let parts = files.filter_map(|(path, entry)| Some((path.as_path(), &**entry.in_force()?)));
    let parts: Vec<(&Path, &InventoryFragment)> = parts.collect();
    let items = |it: &InventoryFragment| {
        let namespaces = it.namespaces.iter().map(|it| it.item.clone());
        let workloads = it.workloads.iter().map(|it| it.item.clone());
        let nodes = it.nodes.iter().map(|it| it.item.clone());
        let namespaces: Vec<_> = namespaces.collect();
        (
            namespaces,
            workloads.collect::<Vec<_>>(),
            nodes.collect::<Vec<_>>(),
        )
    };
    let (mut namespaces, mut workloads, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (_, part) in &parts {
        let (more_namespaces, more_workloads, more_nodes) = items(part);
        namespaces.extend(more_namespaces);
        workloads.extend(more_workloads);
        nodes.extend(more_nodes);
    }
    let (inventory, contested) = Inventory::build_contested(namespaces, workloads, nodes).unwrap();
    let errors = contested
        .iter()
        .filter_map(|error| source_error(&parts, error));
    (inventory, errors.collect())
}

#[test]
fn the_inventory_after_any_edits_of_files_is_the_one_that_is_built_of_their_content() {
    let counts = Cell::new((0, 0, 0));
    proptest!(cases(150), |(edits in vec(vec(edit(), 1..3), 1..10))| {
        let bystanders: String = (0..99).map(|number| {
            format!("[[workload]]\nname = \"w{number}\"\nnamespace = \"far\"\n")
        }).collect();
        let mut setup = Setup::of_an_agent(&[]);
        setup.write("i/z.toml", &format!("[[namespace]]\nname = \"far\"\n{bystanders}"));
        let mut contents: [Vec<String>; 4] = Default::default();
        for step in edits {
            for (number, content) in step {
                let name = format!("i/{number}.toml");
                let Some((keep, more)) = content else {
                    contents[number].clear();
                    _ = fs::remove_file(setup.path(&name));
                    continue;
                };
                let mut keep = keep.into_iter();
                contents[number].retain(|_| keep.next().unwrap_or(true));
                contents[number].extend(more);
                setup.write(&name, &contents[number].concat());
            }
            let reload = setup.set.reload_later();
            let (inventory, contested) = built(&setup.set);
            prop_assert_eq!(&*reload.inventory, &inventory);
            prop_assert_eq!(&setup.set.set.contested.errors, &contested);
            let (taken, refused, wrong) = counts.get();
            let is_refused = reload.errors.len() > contested.len();
            counts.set((
                taken + u32::from(!is_refused),
                refused + u32::from(is_refused),
                wrong + u32::from(!contested.is_empty()),
            ));
        }
    });
    let (taken, refused, wrong) = counts.get();
    println!("{taken} edits taken, {refused} refused, {wrong} with contested entries");
}
