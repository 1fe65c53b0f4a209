//! The object file: every map that the shared crate names, its capacity, and the program sizes.

use aya::maps::MapInfo;
use ringfence::{datapath::LoadOptions, oracle::report};
use ringfence_common::{SECOND, maps};

use crate::{fence::Fence, loaded::Pinned};

#[test]
fn every_named_map_is_in_the_object_and_pinned() {
    let pinned = Pinned::new();
    let _loaded = pinned.load(&LoadOptions::default());
    let capacity = |name: &str| {
        let info = MapInfo::from_pin(pinned.pins.map(name));
        info.unwrap_or_else(|error| panic!("{name}: {error}"))
            .max_entries()
    };
    for name in maps::ALL {
        assert!(capacity(name) > 0, "{name}");
    }
    for (name, expected) in [
        (
            maps::ENDPOINTS,
            (maps::ENDPOINTS_CAPACITY + 1) * ringfence_common::endpoint::RECORDS,
        ),
        (maps::NAMESPACE_MODE, maps::NAMESPACES),
        (maps::IPCACHE4, maps::IPCACHE_CAPACITY),
        (maps::IPCACHE6, maps::IPCACHE_CAPACITY),
        (maps::CIDR4, maps::CIDR_CAPACITY),
        (maps::CIDR6, maps::CIDR_CAPACITY),
        (maps::CLASSES, maps::IDENTITIES),
        (maps::POLICY, maps::POLICY_CAPACITY),
        (maps::IDENTITY_EPOCH, maps::EPOCHS),
        (maps::CT4, maps::CONNTRACK_CAPACITY),
        (maps::CT6, maps::CONNTRACK_CAPACITY),
        (maps::FRAG4, maps::FRAGMENT_CAPACITY),
        (maps::FRAG6, maps::FRAGMENT_CAPACITY),
        (maps::RULE_HITS, maps::RULES),
        (maps::DENIES, maps::DENIES_CAPACITY),
        (maps::EVENTS, maps::EVENTS_BYTES),
        (maps::STATS, ringfence_common::stats::STATS),
        (maps::CLOCK, 2),
        (maps::TABLE_NUMBERS, 1),
        (maps::LOADED_PROGRAMS, 1),
    ] {
        assert_eq!(capacity(name), expected, "{name}");
    }
}

#[test]
fn program_sizes_match_the_record() {
    use ringfence_testbed::sizes::{MAX_VERIFIED_ELSEWHERE, MAX_VERIFIED_INSNS, Record};

    let pinned = Pinned::new();
    let (mut datapath, _) = pinned.load(&LoadOptions::default());
    let measured = Record::measured(&mut datapath).unwrap();
    let record = Record::kept().unwrap();
    let most = if measured.kernel == record.kernel {
        MAX_VERIFIED_INSNS
    } else {
        let verified = measured.programs.iter();
        let verified = verified.map(|(name, sizes)| format!("{name} {}", sizes.verified));
        report(&format!(
            "sizes: instructions verified on {}, not compared with the record, which is of {}: {}",
            measured.kernel,
            record.kernel,
            verified.collect::<Vec<_>>().join(", ")
        ));
        MAX_VERIFIED_ELSEWHERE
    };
    for (name, sizes) in &measured.programs {
        assert!(sizes.verified <= most, "{name}: {sizes:?}");
    }
    let differences = measured.differences(&record);
    assert!(
        differences.is_empty(),
        "{differences:?}; if this is intended, ebpf/sizes.toml should be:\n{}",
        toml::to_string(&measured).unwrap()
    );
}

/// With a wrong tick rate the clocks would differ by more than an eighth of the elapsed time: the
/// tick rates of kernels (100, 250, 300 and 1000) are further apart than that.
#[test]
fn both_clocks_run_at_the_same_speed() {
    let mut fence = Fence::new();
    let first = fence.clocks();
    assert!(first.boot > 0 && first.ticks > 0);
    let mut last = fence.clocks();
    while last.boot - first.boot < SECOND {
        last = fence.clocks();
    }
    let (boot, ticks) = (last.boot - first.boot, last.ticks - first.ticks);
    assert!(boot.abs_diff(ticks) < SECOND / 8, "{boot} and {ticks}");
}
