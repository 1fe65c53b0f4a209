//! A side that streams on does not revive the other side after a revocation.

use ringfence::plan::Action;
use ringfence_common::{SECOND, mode::Mode};

use super::{PROTOCOLS, fence, flow, other, packet};
use crate::fence::{Arriving, FRIEND, Fence, FromHost, Leaving, Way};
use crate::frames::Flow;

/// A client and a server that stream, and how.
struct Streams {
    fence: Fence,
    flow: Flow,
    protocol: u8,
    timeout: u64,
    client: Way,
}

impl Streams {
    /// Every protocol, family and end for the client; it is allowed, and the server answers.
    fn all() -> impl Iterator<Item = Self> {
        PROTOCOLS
            .into_iter()
            .flat_map(|protocol| [false, true].map(|v6| (protocol, v6)))
            .flat_map(|(protocol, v6)| [Leaving, Arriving].map(|way| (protocol, v6, way)))
            .map(|((protocol, _, timeout), v6, client)| {
                let mut streams = Self {
                    fence: fence(),
                    flow: flow(v6, 20_000),
                    protocol,
                    timeout,
                    client,
                };
                streams.fence.govern(client, true, true);
                assert!(streams.client_passes() && streams.server_passes());
                streams
            })
    }

    fn client_passes(&mut self) -> bool {
        let frame = packet(&self.flow, self.client, self.protocol);
        self.fence.allows(Mode::Enforce, self.client, &frame)
    }

    fn server_passes(&mut self) -> bool {
        let server = other(self.client);
        let frame = packet(&self.flow, server, self.protocol);
        self.fence.allows(Mode::Enforce, server, &frame)
    }

    fn revoke(&mut self) {
        self.fence.govern(self.client, false, true);
    }

    fn age(&mut self, seconds: u64) {
        self.fence.age_flows(seconds * SECOND);
    }

    /// The client stays revoked while it sends, and is a peer like any other after a timeout of
    /// silence.
    fn expect_revoked(&mut self, what: &str) {
        let pause = self.timeout - 5;
        for _ in 0..4 {
            assert!(self.server_passes(), "the server's own direction: {what}");
            assert!(!self.client_passes(), "no reply: {what}");
            self.age(pause);
        }
        for _ in 0..2 {
            assert!(self.server_passes(), "{what}");
            self.age(4);
        }
        assert!(self.server_passes(), "{what}");
        assert!(self.client_passes(), "after a timeout of silence: {what}");
    }
}

#[test]
fn a_server_that_streams_on_does_not_revive_a_revoked_client() {
    for mut streams in Streams::all() {
        streams.revoke();
        streams.expect_revoked("unreplied table");
    }
}

#[test]
fn nor_with_an_entry_in_the_assured_map() {
    for mut streams in Streams::all() {
        for _ in 0..2 {
            streams.age(2);
            assert!(streams.client_passes() && streams.server_passes());
        }
        assert_eq!(streams.fence.assured(), 1, "control: it is there");
        streams.revoke();
        streams.expect_revoked("assured map");
    }
}

#[test]
fn nor_when_the_entry_is_moved_after_the_revocation() {
    for mut streams in Streams::all() {
        assert_eq!(streams.fence.assured(), 0);
        streams.revoke();
        assert!(!streams.client_passes());
        // In observe the client's packets make the flow assured.
        streams.fence.set_mode(Mode::Observe);
        let frame = packet(&streams.flow, streams.client, streams.protocol);
        for _ in 0..3 {
            streams.age(2);
            assert!(!streams.fence.allows(Mode::Observe, streams.client, &frame));
        }
        streams.fence.set_mode(Mode::Enforce);
        assert_eq!(streams.fence.assured(), 1, "control: it was moved");
        streams.expect_revoked("moved");
    }
}

#[test]
fn a_client_that_sends_less_than_the_server_is_not_silent() {
    for mut streams in Streams::all() {
        let pause = streams.timeout / 3;
        for _ in 0..6 {
            streams.age(pause);
            // The server's packet has just extended the entry's life.
            assert!(streams.server_passes() && streams.client_passes());
        }
        streams.revoke();
        streams.expect_revoked("a slow client");
    }
}

#[test]
fn a_client_whose_packets_are_all_evaluated_again_is_not_silent() {
    for mut streams in Streams::all() {
        streams.revoke();
        let pause = streams.timeout / 3;
        for _ in 0..6 {
            assert!(streams.server_passes());
            streams
                .fence
                .write(Action::BumpEpoch(FRIEND.ip(streams.flow.v6)));
            assert!(!streams.client_passes(), "in its recorded direction");
            streams.age(pause);
        }
        streams.expect_revoked("new epochs");
    }
}

#[test]
fn a_revoked_client_alone_stays_recorded() {
    for mut streams in Streams::all() {
        streams.revoke();
        let pause = streams.timeout - 5;
        for _ in 0..4 {
            assert!(!streams.client_passes());
            streams.age(pause);
        }
        streams.expect_revoked("the server was silent");
    }
}

#[test]
fn a_client_that_is_allowed_again_gets_its_replies() {
    for mut streams in Streams::all() {
        streams.fence.govern(streams.client, false, false);
        assert!(!streams.server_passes() && !streams.client_passes());
        streams.fence.govern(streams.client, true, false);
        assert!(streams.server_passes(), "a reply, before the client sends");
        assert!(streams.client_passes());
        streams.fence.govern(streams.client, false, false);
        assert!(!streams.client_passes() && !streams.server_passes());
    }
}

#[test]
fn what_the_host_may_send_over_a_revoked_flow_others_may_not() {
    for mut streams in Streams::all() {
        if streams.client != Leaving {
            continue;
        }
        // The client is the workload, and nothing but the host's sockets may send to it.
        streams.fence.govern(Leaving, false, false);
        let frame = packet(&streams.flow, Arriving, streams.protocol);
        for _ in 0..3 {
            streams
                .fence
                .passes(FromHost, &frame, "a socket of the host");
            assert!(!streams.server_passes(), "the same packet from elsewhere");
            assert!(!streams.client_passes(), "and it revives nothing");
        }
    }
}

#[test]
fn the_host_opens_a_flow_that_others_with_its_address_may_not() {
    for mut streams in Streams::all() {
        if streams.client != Arriving {
            continue;
        }
        streams.fence.govern(Arriving, false, false);
        let frame = packet(&streams.flow, Arriving, streams.protocol);
        assert!(!streams.client_passes(), "control: from elsewhere");
        for _ in 0..3 {
            streams
                .fence
                .passes(FromHost, &frame, "a socket of the host");
            assert!(streams.server_passes(), "a reply to the host");
            assert!(!streams.client_passes(), "the same packet from elsewhere");
        }
    }
}
