//! The endpoints of this node, and how long each of their interfaces accepts older connections.
//!
//! Invariant: interfaces of one workload are attachments of one endpoint.

use std::collections::BTreeMap;

use super::{
    Desired, Reconciler,
    pickup::{self, Window},
};
use crate::{
    datapath::Datapath,
    model::{Attachment, EndpointId},
    plan::Action,
    policy::LocalEndpoint,
};

impl<D: Datapath> Reconciler<D> {
    /// The endpoints of this node: the workloads whose interface exists and may have a fence.
    pub(super) fn local_endpoints(
        &mut self,
        desired: &Desired<'_>,
        boot: u64,
    ) -> Vec<LocalEndpoint> {
        if !self.actual.pickups.contains_key(&pickup::MARK) {
            let mark = pickup::mark(desired.interfaces);
            self.record_pickup(pickup::MARK, mark);
        }
        let records = &self.actual.endpoints;
        self.attachments
            .bind(desired.inventory, desired.interfaces, records);
        let suitable = self.attachments.suitable(desired.interfaces, records);
        let mut endpoints: BTreeMap<EndpointId, Vec<Attachment>> = BTreeMap::new();
        for (ifindex, workload) in suitable {
            let id = EndpointId::of(workload.clone());
            endpoints.entry(id).or_default().push(Attachment {
                ifindex,
                pickup_until: 0,
            });
        }
        let attachments = endpoints.values_mut().flatten();
        for Attachment {
            ifindex,
            pickup_until,
        } in attachments
        {
            *pickup_until = match pickup::window(&self.actual, *ifindex, boot) {
                Window::Until(deadline) => deadline,
                // Without a record it could open again.
                Window::Opens(deadline) if self.record_pickup(*ifindex, deadline) => deadline,
                Window::Opens(_) => 0,
            };
        }
        let endpoints = endpoints.into_iter();
        endpoints
            .map(|(id, attachments)| LocalEndpoint { id, attachments })
            .collect()
    }

    /// Records the end of an interface's pick-up window; false if the kernel refuses.
    fn record_pickup(&mut self, ifindex: u32, deadline: u32) -> bool {
        self.write(&[Action::SetPickup(ifindex, deadline)]).is_ok()
    }
}
