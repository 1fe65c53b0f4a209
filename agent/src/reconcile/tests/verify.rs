//! A kernel that was changed behind the reconciler's back.

use std::time::{Duration, Instant};

use ringfence_common::{
    ids::{IdentityId, NamespaceSlot},
    policy::PolicyRow,
};

use super::*;
use crate::datapath::Standing;

const ABSENT: Standing = Standing::Absent {
    hook: "to_workload",
};
const BEHIND: Standing = Standing::Behind {
    hook: "from_workload",
    program: 80,
};

/// A published world, and its kernel.
struct Published {
    kernel: Fake,
    world: World,
    subject: Reconciler<Fake>,
    _dir: tempfile::TempDir,
}

impl Published {
    fn new() -> Self {
        let (kernel, dir) = (Fake::default(), tempfile::tempdir().unwrap());
        let world = World::new(OPEN);
        let mut subject = reconciler(&kernel, dir.path());
        publish_and_retire(&mut subject, &world);
        kernel.0.borrow_mut().calls.clear();
        Self {
            kernel,
            world,
            subject,
            _dir: dir,
        }
    }

    fn find(&self, ifindex: u32, standing: Standing) {
        let mut kernel = self.kernel.0.borrow_mut();
        kernel.standings.insert(ifindex, standing);
    }

    /// The kinds of repairs that a look leads to.
    fn look(&mut self, now: Instant) -> Vec<RepairKind> {
        let (number, look) = self.subject.begin_look().unwrap();
        let links = &self.world.interfaces;
        let repairs = self.subject.finish_look(number, look(), links, now);
        repairs.iter().map(|repair| repair.kind).collect()
    }

    /// The kinds of repairs of so many steps.
    fn verify(&mut self, steps: usize) -> Vec<RepairKind> {
        let repairs = (0..steps).flat_map(|_| self.subject.verify_entries().unwrap());
        repairs.map(|repair| repair.kind).collect()
    }

    /// As many steps as a round takes at most: each looks at an entry, or ends a map or a table.
    fn round(&self) -> usize {
        const MAPS: usize = 5;
        let state = &self.kernel.0.borrow().state;
        let entries = state.addresses.len() + state.prefixes.len() + state.classes.len();
        entries + state.rows() + state.tables.len() + state.pickups.len() + MAPS
    }

    fn attached_again(&self) -> Vec<u32> {
        let kernel = self.kernel.0.borrow();
        let attached = kernel.calls.iter().filter_map(|call| match call {
            Call::Attach(ifindex) => Some(*ifindex),
            _ => None,
        });
        attached.collect()
    }
}

#[test]
fn a_fence_that_is_missing_or_not_first_is_attached_again() {
    let (mut published, now) = (Published::new(), Instant::now());
    assert_eq!(published.look(now), [], "the control");
    published.find(7, ABSENT);
    published.find(9, BEHIND);
    let repairs = published.look(now);
    assert_eq!(
        repairs,
        [RepairKind::FenceMissing, RepairKind::FenceNotFirst]
    );
    assert_eq!(published.attached_again(), [7, 9]);
    let degraded = |published: &Published| {
        let presences = published.subject.presences(&published.world.interfaces);
        presences.values().filter(|it| !it.is_in_order()).count()
    };
    assert_eq!(degraded(&published), 1, "until it is seen to be first");
    assert_eq!(published.look(now), []);
    assert_eq!(degraded(&published), 0);
    published.find(9, BEHIND);
    assert_eq!(published.look(now + Duration::from_secs(1)), [], "too soon");
    assert_eq!(degraded(&published), 1);
}

#[test]
fn a_fence_that_cannot_be_attached_again_is_tried_until_it_is() {
    let (mut published, now) = (Published::new(), Instant::now());
    published.find(7, ABSENT);
    published.kernel.0.borrow_mut().unattachable = Some(7);
    assert_eq!(published.look(now), []);
    let unfenced = |published: &Published| {
        let presences = published.subject.presences(&published.world.interfaces);
        presences
            .values()
            .filter(|it| it.unfenced.is_some())
            .count()
    };
    assert_eq!(unfenced(&published), 1);
    published.kernel.0.borrow_mut().unattachable = None;
    assert!(published.subject.retry_failed(&published.world.interfaces));
    assert_eq!(unfenced(&published), 0);
}

#[test]
fn records_and_modes_are_put_right_at_once() {
    let mut published = Published::new();
    assert_eq!(published.verify(20), [], "the control");
    let before = published.kernel.0.borrow().state.clone();
    {
        let state = &mut published.kernel.0.borrow_mut().state;
        state.endpoints.get_mut(&7).unwrap().table = TableId(99);
        state.endpoints.remove(&9);
        let slots: Vec<NamespaceSlot> = state.modes.keys().copied().collect();
        for slot in slots {
            state.modes.insert(slot, Mode::Observe);
        }
    }
    let mut repairs = published.verify(1);
    repairs.sort_unstable();
    repairs.dedup();
    assert_eq!(repairs, [RepairKind::Endpoint, RepairKind::Mode]);
    let after = published.kernel.0.borrow().state.clone();
    assert_eq!(after, before);
    let bumped = Call::Write(Action::BumpAllEpochs);
    assert!(published.kernel.0.borrow().calls.contains(&bumped));
}

#[test]
fn other_entries_are_put_right_in_a_round() {
    let mut published = Published::new();
    let before = published.kernel.0.borrow().state.clone();
    let stray: IpAddr = "10.9.9.9".parse().unwrap();
    let own: IpAddr = "10.1.0.1".parse().unwrap();
    {
        let state = &mut published.kernel.0.borrow_mut().state;
        state.addresses.insert(stray, IdentityId(400));
        state.addresses.insert(own, IdentityId(400));
        state
            .addresses
            .remove(&"fd00::2".parse::<IpAddr>().unwrap());
        let (table, rows) = state.tables.iter_mut().next().unwrap();
        let rows = Arc::make_mut(rows);
        let (mut key, row) = rows.iter().next().map(|(key, row)| (*key, *row)).unwrap();
        let other = PolicyRow { verdict: 9, ..row };
        rows.insert(key, other);
        key.1.table = *table;
        // No row has a prefix as short as this one.
        key.0 = 7;
        rows.insert(key, row);
    }
    let round = published.round();
    let repairs = published.verify(round);
    assert_eq!(repairs.len(), 5, "{repairs:?}");
    let after = published.kernel.0.borrow().state.clone();
    assert_eq!(after.addresses, before.addresses);
    assert_eq!(after.tables, before.tables);
    let calls = published.kernel.0.borrow().calls.clone();
    for address in [own, stray] {
        assert!(calls.contains(&Call::Write(Action::BumpEpoch(address))));
    }
    assert_eq!(published.verify(round), [], "once");
}
