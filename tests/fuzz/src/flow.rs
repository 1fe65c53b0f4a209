//! Flow records: any 96 bytes of a flow event and any text in a rule give one valid JSON line in
//! the log.

use std::sync::{Arc, LazyLock};

use ringfence::model::quote::is_deceptive;
use ringfence::observe::{Decoder, Directory, Filter, FlowRecord, History, RuleName, hubble};
use ringfence_common::event::{EventKind, FlowEvent};
use ringfence_common::ids::RuleSlot;
use ringfence_common::mode::Direction;
use serde_json::Value;
use zerocopy::FromBytes as _;

use crate::example::INVENTORY;

/// The wall clock minus the boot clock, in ns: some time in 2026.
const OFFSET: i128 = 1_767_323_044_000_000_000;

static DECODER: LazyLock<Decoder> = LazyLock::new(Decoder::default);

/// A flow event of the kernel, followed by the text of the deciding rule's fields.
pub fn flow(input: &[u8]) {
    let Ok((event, text)) = FlowEvent::read_from_prefix(input) else {
        return;
    };
    let names = directory(&event, &String::from_utf8_lossy(text));
    let known =
        EventKind::from_raw(event.kind).is_some() && Direction::from_raw(event.direction).is_some();
    let Some(record) = DECODER.decode(&event, &names, OFFSET) else {
        assert!(
            !known || i64::try_from(event.time).is_err(),
            "an event of a known kind is lost: {event:?}"
        );
        return;
    };
    assert!(known, "an event of an unknown kind is decoded: {event:?}");
    let mut line = Vec::new();
    hubble::write_line(&mut line, &record);
    check_line(&line);
    check_history(record);
}

fn directory(event: &FlowEvent, text: &str) -> Directory {
    let text: Arc<str> = Arc::from(text);
    let rule = RuleName {
        policy: Arc::clone(&text),
        kind: "RingfencePolicy",
        namespace: Arc::clone(&text),
        name: Arc::clone(&text),
        rule: Arc::clone(&text),
        owner: Some(Arc::clone(&text)),
        justification: Some(Arc::clone(&text)),
        ticket: Some(Arc::clone(&text)),
        review_by: None,
        expires: None,
        origin: Arc::clone(&text),
    };
    let mut names = Directory::new(&text, INVENTORY.owners.clone());
    names.set_identity(event.peer_identity, Some(text));
    names.set_rule(RuleSlot(event.rule.0), Some(Arc::new(rule)));
    match INVENTORY.workloads.values().next() {
        Some(workload) if event.ifindex.is_multiple_of(2) => {
            names.with_endpoints([(event.ifindex, Arc::clone(workload))])
        }
        _ => names,
    }
}

fn check_line(line: &[u8]) {
    let text = std::str::from_utf8(line).expect("a line is UTF-8");
    let text = text.strip_suffix('\n').expect("a line ends");
    let deceptive = text.chars().find(|character| is_deceptive(*character));
    assert!(deceptive.is_none(), "{deceptive:?} in {text:?}");
    let value: Value = serde_json::from_str(text).expect("a line is JSON");
    for key in ["flow", "node_name", "time"] {
        assert!(value.get(key).is_some(), "no {key} in {text}");
    }
}

/// A stored record must be found by a filter that matches it.
fn check_history(record: FlowRecord) {
    let history = History::new(4);
    let filter = Filter {
        verdict: Some(record.verdict),
        since: Some(record.time),
        ..Filter::default()
    };
    history.push(&[Arc::new(record)]);
    assert_eq!(history.recent(&filter, Some(1)).len(), 1, "not found again");
}
