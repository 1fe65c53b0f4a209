//! The kernel programs: those that are pinned, or else loaded again.
//!
//! Invariants: pinned programs are taken over only if the recorded fingerprint is that of what this
//! build would load and of what is pinned now; in every other case they are loaded again. The record
//! is written after the programs are pinned, and holds their IDs, so a start that ends in between
//! leaves a record that fits nothing. Which programs are attached is decided elsewhere: taken over or
//! not, each link is updated to the program held here.
//!
//! Taken-over programs keep the maps that are not pinned (scratch space, sent reject packets), which
//! the agent never uses; only the debug log is such a map, so programs with it are always loaded
//! again.

use aya::{
    Ebpf,
    maps::{Array, MapData, MapInfo},
    programs::{Program, ProgramError, SchedClassifier},
};
use ringfence_common::maps as names;

use super::{
    DatapathError,
    attach::{self, HOOKS},
    clock,
    error::chain,
    fingerprint::{Build, Fingerprint, LoadedProgram, PinnedMap, fingerprint},
    maps::{failed, open},
    pins::Pins,
    tcx::Movable,
};

/// What stands in for each program of [`HOOKS`] while that moves to the head of its hook.
const STAND_INS: [&str; HOOKS.len()] = ["stand_in_from", "stand_in_to"];

/// Every program that the agent attaches or runs.
fn program_names() -> impl Iterator<Item = &'static str> {
    let hooks = HOOKS.map(|(name, _)| name);
    hooks.into_iter().chain(STAND_INS).chain([clock::PROGRAM])
}

/// Handles of the pinned programs.
pub(super) struct Programs(Vec<(&'static str, SchedClassifier)>);

impl Programs {
    /// The pinned programs, if they are what this build would load.
    pub(super) fn take_over(pins: &Pins, build: Build<'_>) -> Option<Self> {
        let recorded = record(pins).ok()?.get(&0, 0).ok()?;
        let programs = Self::open(pins).ok()?;
        let found = programs.fingerprint(pins, build).ok()?;
        (found == recorded).then_some(programs)
    }

    /// Loads the object's programs, pins them, and records what they were loaded from.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        pins: &Pins,
        build: Build<'_>,
    ) -> Result<Self, DatapathError> {
        load_programs(ebpf)?;
        for name in program_names() {
            let pin = pins.program(name);
            attach::remove(&pin)?;
            let pinned = classifier(ebpf, name)?.pin(&pin);
            pinned.map_err(|error| refused(name, &error))?;
        }
        let programs = Self::open(pins)?;
        let loaded = programs.fingerprint(pins, build)?;
        record(pins)?
            .set(0, loaded, 0)
            .map_err(failed(names::LOADED_PROGRAMS, "write the fingerprint"))?;
        Ok(programs)
    }

    /// A program by its name.
    pub(super) fn get(
        &mut self,
        name: &'static str,
    ) -> Result<&mut SchedClassifier, DatapathError> {
        let found = self.0.iter_mut().find(|(own, _)| *own == name);
        found.map(|(_, program)| program).ok_or(missing(name))
    }

    /// The program of a hook with its stand-in.
    pub(super) fn movable(&mut self, name: &'static str) -> Result<Movable<'_>, DatapathError> {
        let index = HOOKS.iter().position(|(hook, _)| *hook == name);
        let index = index.ok_or(missing(name))?;
        let stand_in_name = STAND_INS.get(index).copied().unwrap_or_default();
        let (mut program, mut stand_in) = (None, None);
        for (own, found) in &mut self.0 {
            if *own == name {
                program = Some(found);
            } else if *own == stand_in_name {
                stand_in = Some(found);
            }
        }
        Ok(Movable {
            program: program.ok_or(missing(name))?,
            stand_in: stand_in.ok_or(missing(stand_in_name))?,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        })
    }

    /// The IDs of the programs of [`HOOKS`].
    pub(super) fn ids(&mut self) -> Result<[u32; HOOKS.len()], DatapathError> {
        let mut ids = [0; HOOKS.len()];
        for ((name, _), id) in HOOKS.into_iter().zip(&mut ids) {
            let info = self.get(name)?.info();
            *id = info.map_err(|error| refused(name, &error))?.id();
        }
        Ok(ids)
    }

    fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let open = |name| {
            let program = SchedClassifier::from_pin(pins.program(name));
            Ok((name, program.map_err(|error| refused(name, &error))?))
        };
        program_names()
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn fingerprint(&self, pins: &Pins, build: Build<'_>) -> Result<Fingerprint, DatapathError> {
        let maps = names::ALL.into_iter().map(|name| {
            let info = MapInfo::from_pin(pins.map(name)).map_err(failed(name, "inspect"))?;
            Ok(PinnedMap {
                name,
                id: info.id(),
            })
        });
        let maps = maps.collect::<Result<Vec<_>, DatapathError>>()?;
        let programs = self.0.iter().map(|(name, program)| {
            let info = program.info().map_err(|error| refused(name, &error))?;
            Ok(LoadedProgram {
                name,
                id: info.id(),
                tag: info.tag(),
            })
        });
        let programs = programs.collect::<Result<Vec<_>, DatapathError>>()?;
        Ok(fingerprint(build, &maps, &programs))
    }
}

/// The map with the fingerprint of the programs pinned next to it.
fn record(pins: &Pins) -> Result<Array<MapData, Fingerprint>, DatapathError> {
    open(pins, names::LOADED_PROGRAMS)
}

/// The object's program with this name.
fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    let program = ebpf.program_mut(name).ok_or(missing(name))?;
    program.try_into().map_err(|_| missing(name))
}

fn missing(program: &'static str) -> DatapathError {
    DatapathError::Program {
        program,
        reason: "not in the object".into(),
    }
}

fn refused(program: &'static str, error: &dyn std::error::Error) -> DatapathError {
    DatapathError::Program {
        program,
        reason: chain(error),
    }
}

/// Loads each program on its own thread: verifying them one after the other takes most of a start,
/// and the verifier takes no lock for privileged loaders.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let names: Vec<_> = program_names().collect();
    for name in &names {
        classifier(ebpf, name)?;
    }
    std::thread::scope(|scope| {
        let mut loading = Vec::new();
        for (found, program) in ebpf.programs_mut() {
            if let Some(name) = names.iter().copied().find(|name| *name == found) {
                loading.push((name, scope.spawn(|| load_program(program))));
            }
        }
        // `fold` joins every thread, even after one has failed.
        let outcomes = loading.into_iter().map(|(program, thread)| {
            let outcome = thread.join();
            let outcome = outcome.unwrap_or_else(|_| Err("its loader panicked".to_owned()));
            outcome.map_err(|reason| DatapathError::Program { program, reason })
        });
        outcomes.fold(Ok(()), Result::and)
    })
}

fn load_program(program: &mut Program) -> Result<(), String> {
    let program: Result<&mut SchedClassifier, ProgramError> = program.try_into();
    let program = program.map_err(|error| chain(&error))?;
    program.load().map_err(|error| chain(&error))
}
