//! By what a start recognises the programs that it would load itself.
//!
//! Invariants: equal fingerprints mean the same loader, object, constants and maps, and the
//! same programs in the kernel; every field is hashed with its length, so none can pass for a part of
//! its neighbour. Pure: what is loaded and pinned is looked up by [`super::programs`].
//!
//! Sources of facts: a program's tag covers its instructions with map references left out, and not
//! `.rodata` (`bpf_prog_calc_tag` in `kernel/bpf/core.c`); IDs of programs and maps are given in
//! ascending order and not again before all are used up (`idr_alloc_cyclic` in
//! `kernel/bpf/syscall.c`), and a program keeps the maps that it was loaded with.

use sha2::{Digest as _, Sha256};

use super::constants::Constants;

/// SHA-256; all zero, as in a map that was never written, is none.
pub(super) type Fingerprint = [u8; 32];

/// What this build would load the programs from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Build<'a> {
    /// Names and versions of the crates that relocate the object.
    pub(super) loader: &'a str,
    /// The object file.
    pub(super) object: &'a [u8],
    /// The constants written into it.
    pub(super) constants: &'a Constants,
}

/// A pinned map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PinnedMap {
    pub(super) name: &'static str,
    pub(super) id: u32,
}

/// A program as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LoadedProgram {
    pub(super) name: &'static str,
    pub(super) id: u32,
    pub(super) tag: u64,
}

/// The fingerprint of programs that were loaded from a build over these maps.
pub(super) fn fingerprint(
    build: Build<'_>,
    maps: &[PinnedMap],
    programs: &[LoadedProgram],
) -> Fingerprint {
    let mut sum = Sum::default();
    sum.field(build.loader.as_bytes());
    sum.field(build.object);
    for (name, value) in build.constants.each() {
        sum.field(name.as_bytes());
        sum.field(value);
    }
    sum.end();
    for map in maps {
        sum.field(map.name.as_bytes());
        sum.field(&map.id.to_le_bytes());
    }
    sum.end();
    for program in programs {
        sum.field(program.name.as_bytes());
        sum.field(&program.id.to_le_bytes());
        sum.field(&program.tag.to_le_bytes());
    }
    sum.0.finalize().into()
}

#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Ends a list: no field has this length.
    fn end(&mut self) {
        self.0.update(u64::MAX.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: [PinnedMap; 2] = [
        PinnedMap { name: "A", id: 1 },
        PinnedMap { name: "B", id: 2 },
    ];
    const PROGRAMS: [LoadedProgram; 2] = [
        LoadedProgram {
            name: "from",
            id: 11,
            tag: 21,
        },
        LoadedProgram {
            name: "to",
            id: 12,
            tag: 22,
        },
    ];

    fn constants(values: &[(&'static str, u32)]) -> Constants {
        let mut constants = Constants::default();
        for (name, value) in values {
            constants.add(name, value);
        }
        constants
    }

    fn of(
        object: &[u8],
        constants: &Constants,
        maps: &[PinnedMap],
        programs: &[LoadedProgram],
    ) -> Fingerprint {
        let build = Build {
            loader: "aya 1",
            object,
            constants,
        };
        fingerprint(build, maps, programs)
    }

    #[test]
    fn every_part_counts() {
        let given = constants(&[("TICK", 4), ("DEBUG", 0)]);
        let known = of(b"object", &given, &MAPS, &PROGRAMS);
        assert_eq!(known, of(b"object", &given.clone(), &MAPS, &PROGRAMS));
        assert_ne!(known, Fingerprint::default());

        let [map, next] = MAPS;
        let [from, to] = PROGRAMS;
        let other_map = [PinnedMap { id: 3, ..map }, next];
        let swapped = [PinnedMap { id: 2, ..map }, PinnedMap { id: 1, ..next }];
        let other_id = [LoadedProgram { id: 13, ..from }, to];
        let other_tag = [LoadedProgram { tag: 23, ..from }, to];
        let others = [
            of(b"objecu", &given, &MAPS, &PROGRAMS),
            of(
                b"object",
                &constants(&[("TICK", 10), ("DEBUG", 0)]),
                &MAPS,
                &PROGRAMS,
            ),
            of(
                b"object",
                &constants(&[("TICK", 4), ("DEBUG", 1)]),
                &MAPS,
                &PROGRAMS,
            ),
            of(b"object", &constants(&[("TICK", 4)]), &MAPS, &PROGRAMS),
            of(b"object", &given, &other_map, &PROGRAMS),
            of(b"object", &given, &swapped, &PROGRAMS),
            of(b"object", &given, &[map], &PROGRAMS),
            of(b"object", &given, &MAPS, &other_id),
            of(b"object", &given, &MAPS, &other_tag),
            of(b"object", &given, &MAPS, &[to, from]),
            of(b"object", &given, &MAPS, &[from]),
        ];
        for (case, other) in others.iter().enumerate() {
            assert_ne!(known, *other, "case {case}");
        }
        let build = Build {
            loader: "aya 2",
            object: b"object",
            constants: &given,
        };
        assert_ne!(known, fingerprint(build, &MAPS, &PROGRAMS));
    }

    #[test]
    fn no_part_passes_for_another() {
        let none = Constants::default();
        let mut one = Constants::default();
        one.add("A", &1u32);
        let map = [PinnedMap { name: "A", id: 1 }];
        assert_ne!(of(b"", &one, &[], &[]), of(b"", &none, &map, &[]));
        let mut longer = Constants::default();
        longer.add("AB", b"C");
        let mut shorter = Constants::default();
        shorter.add("A", b"BC");
        assert_ne!(of(b"", &longer, &[], &[]), of(b"", &shorter, &[], &[]));
    }
}
