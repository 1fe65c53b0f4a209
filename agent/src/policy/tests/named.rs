//! Only labels and service accounts that policies name tell identities apart, and a change of what
//! they name is never seen half.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ringfence_common::mode::{Direction, Verdict};

use super::kernel::{self, Rows};
use crate::{
    model::{Inventory, PolicySet},
    oracle::{BOOT, World},
    plan::{Action, State, plan},
    policy::{Compiled, Compiler},
    source::{inventory_toml, policy_toml},
};

/// `target` is the subject; the others differ in `tier` and `job`, and `robot` in its account.
const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
[[workload]]
name = "target"
namespace = "shop"
labels = { app = "db" }
addresses = ["10.0.0.1"]
[[workload]]
name = "front"
namespace = "shop"
labels = { app = "web", tier = "front", job = "1" }
addresses = ["10.0.0.2"]
[[workload]]
name = "back"
namespace = "shop"
labels = { app = "web", tier = "back", job = "2" }
addresses = ["10.0.0.3"]
[[workload]]
name = "plain"
namespace = "shop"
labels = { app = "web", job = "3" }
addresses = ["10.0.0.4"]
[[workload]]
name = "robot"
namespace = "shop"
labels = { app = "web", job = "4" }
service-account = "robot"
addresses = ["10.0.0.5"]
"#;
const PEERS: [&str; 4] = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];

const BY_APP: &str = r#"
[[policy]]
name = "db"
namespace = "shop"
subject = "app=db"
[[policy.ingress]]
from = [{ pods = "app=web" }]
ports = ["tcp/80"]
"#;

/// `BY_APP`, and an Admin policy that denies a peer.
fn denying(peer: &str) -> String {
    format!(
        r#"{BY_APP}
[[policy]]
name = "shut"
scope = "cluster"
tier = "admin"
priority = 10
subject = "app=db"
[[policy.ingress]]
action = "deny"
from = [{peer}]
"#
    )
}

fn items<T>(declared: Vec<inventory_toml::Declared<T>>) -> Vec<T> {
    declared.into_iter().map(|declared| declared.item).collect()
}

fn world(policies: &str) -> World {
    let read = inventory_toml::parse("i.toml", INVENTORY).unwrap();
    let (namespaces, workloads) = (items(read.namespaces), items(read.workloads));
    let inventory = Inventory::build(namespaces, workloads, Vec::new()).unwrap();
    World {
        inventory: Arc::new(inventory),
        policies: policy_set(policies),
    }
}

fn policy_set(policies: &str) -> Arc<PolicySet> {
    let read = policy_toml::parse("p.toml", policies).unwrap();
    Arc::new(PolicySet::build(read.policies).unwrap())
}

/// Which peers the target admits to TCP port 80, by the table that it has in a state.
fn admitted(state: &State, compiled: &Compiled) -> Vec<bool> {
    let info = compiled
        .endpoints
        .values()
        .find(|info| info.workload.id.name.as_str() == "target")
        .unwrap();
    let table = state.endpoints[&info.attachments[0].ifindex].table;
    let rows = Rows::of(state);
    let admits = |peer: IpAddr| {
        let class = kernel::class(state, peer);
        let decision = rows.decide(table, class, Direction::Ingress, (6, 80), BOOT);
        decision.unwrap().verdict == Verdict::Allow
    };
    PEERS.map(|peer| admits(peer.parse().unwrap())).to_vec()
}

fn identities(state: &State) -> usize {
    let ids: BTreeSet<_> = state.addresses.values().collect();
    ids.len()
}

#[test]
fn properties_that_no_policy_names_make_no_identities() {
    let compiled = world(BY_APP).compile(&mut Compiler::default());
    assert_eq!(identities(&compiled.state), 2, "app=db and app=web");
    for (peer, expected) in [
        ("{ namespaces = \"\", pods = \"tier=back\" }", 4),
        ("{ namespaces = \"\", pods = \"tier\" }", 4),
        ("{ namespaces = \"\", pods = \"!tier\" }", 4),
        ("{ namespaces = \"\", pods = \"job=9\" }", 5),
        ("{ namespaces = \"\", service-account = \"robot\" }", 3),
        ("{ namespaces = \"\", service-account = \"other\" }", 2),
    ] {
        let compiled = world(&denying(peer)).compile(&mut Compiler::default());
        assert_eq!(identities(&compiled.state), expected, "{peer}");
    }
}

/// Publishes a change write by write: after each, the target decides about all peers wholly by the
/// old policies or wholly by the new ones. Returns the writes of addresses.
fn published(compiler: &mut Compiler, state: &mut State, to: &str, both: [&[bool]; 2]) -> usize {
    let mut moved = 0;
    let mut flipped = false;
    // The second pass removes what only the old tables needed.
    for _ in 0..2 {
        let compiled = world(to).attempt(compiler, &world(to).endpoints());
        let plan = plan(state, &compiled.state);
        for action in plan.publish.iter().chain(&plan.retire) {
            let last = admitted(state, &compiled);
            state.record(action);
            let now = admitted(state, &compiled);
            moved += usize::from(matches!(action, Action::PutAddress(..)));
            assert!(both.contains(&&now[..]), "{now:?} after {action:?}");
            flipped |= now != last;
            assert!(!flipped || now == both[1], "back again after {action:?}");
        }
        compiler.in_force();
        assert_eq!(admitted(state, &compiled), both[1]);
    }
    moved
}

#[test]
fn a_deny_on_a_new_key_or_account_is_never_open_and_its_end_never_shuts_others() {
    let open: &[bool] = &[true; 4];
    let cases: BTreeMap<&str, &[bool]> = BTreeMap::from([
        (
            "{ namespaces = \"\", pods = \"tier=back\" }",
            &[true, false, true, true][..],
        ),
        (
            "{ namespaces = \"\", pods = \"!tier\" }",
            &[true, true, false, false][..],
        ),
        (
            "{ namespaces = \"\", pods = \"tier notin (back)\" }",
            &[false, true, false, false][..],
        ),
        (
            "{ namespaces = \"\", service-account = \"robot\" }",
            &[true, true, true, false][..],
        ),
    ]);
    for (peer, shut) in cases {
        let mut compiler = Compiler::default();
        let mut state = world(BY_APP).compile(&mut compiler).state;
        let came = published(&mut compiler, &mut state, &denying(peer), [open, shut]);
        assert!(came > 0, "{peer}: identities split");
        let went = published(&mut compiler, &mut state, BY_APP, [shut, open]);
        assert_eq!(went, came, "{peer}: and merge again");
        let fresh = world(BY_APP).compile(&mut Compiler::default());
        assert_eq!(identities(&state), identities(&fresh.state), "{peer}");
    }
}

#[test]
fn a_change_of_one_key_for_another_is_never_seen_half() {
    let shut_back: &[bool] = &[true, false, true, true];
    let shut_third: &[bool] = &[true, true, false, true];
    let by_tier = denying("{ namespaces = \"\", pods = \"tier=back\" }");
    let by_job = denying("{ namespaces = \"\", pods = \"job=3\" }");
    let mut compiler = Compiler::default();
    let mut state = world(&by_tier).compile(&mut compiler).state;
    for _ in 0..3 {
        published(&mut compiler, &mut state, &by_job, [shut_back, shut_third]);
        published(&mut compiler, &mut state, &by_tier, [shut_third, shut_back]);
    }
}

/// Attempts fail at every write; the table in force still decides by its own policies.
#[test]
fn a_failed_publish_of_a_new_key_leaves_the_old_policy() {
    let open: &[bool] = &[true; 4];
    let shut: &[bool] = &[true, false, true, true];
    let to = denying("{ namespaces = \"\", pods = \"tier=back\" }");
    for made in 0.. {
        let mut compiler = Compiler::default();
        let mut state = world(BY_APP).compile(&mut compiler).state;
        let compiled = world(&to).attempt(&mut compiler, &world(&to).endpoints());
        let writes = plan(&state, &compiled.state).publish;
        writes
            .iter()
            .take(made)
            .for_each(|action| state.record(action));
        // Another change comes before the first is made again.
        let now = admitted(&state, &compiled);
        let from = if now == shut { shut } else { open };
        published(&mut compiler, &mut state, BY_APP, [from, open]);
        published(&mut compiler, &mut state, &to, [open, shut]);
        if made > writes.len() {
            break;
        }
    }
}
