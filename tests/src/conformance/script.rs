//! Plays one case on a stage: controls, the steps, the steps in another order, a restart.
//!
//! Everything that is expected is known before the first step. A case that failed is played no
//! further than the run that failed.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::Result;

use super::case::{Case, Stop, Verb};
use super::grid::{self, Cell, Judged, Miss, Want};
use super::objects::{self, Objects};
use super::port::Family;
use super::stage::{Policies, Reception, Stage};
use super::world::World;
use super::{refusal, substitution, toml_blocks};

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The step's label, and a cell that was not as expected after it.
    pub(super) misses: Vec<(String, Miss)>,
    /// What else went wrong.
    pub(super) faults: Vec<String>,
}

impl Outcome {
    /// Whether everything was as expected.
    pub(super) fn passed(&self) -> bool {
        self.misses.is_empty() && self.faults.is_empty()
    }
}

/// What is to be seen after a step.
struct Expected {
    world: World,
    cells: Vec<Judged>,
}

/// In which order the documents of a step come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Written,
    Reversed,
}

impl Order {
    fn suffix(self) -> &'static str {
        match self {
            Self::Written => "",
            Self::Reversed => "-reversed",
        }
    }
}

/// Plays the whole case. An error means that the stage broke.
pub(super) fn play(case: &Case, stage: &mut dyn Stage) -> Result<Outcome> {
    let start = World::new(case, stage.ends())?;
    let mut script = Script {
        case,
        stage,
        expected: expected(case, &start)?,
        start,
        outcome: Outcome::default(),
    };
    script.controls()?;
    if script.outcome.passed() {
        script.run(Order::Written)?;
    }
    if script.outcome.passed() && script.has_another_order() {
        script.run(Order::Reversed)?;
    }
    if script.outcome.passed() {
        script.restart_at_the_end()?;
    }
    Ok(script.outcome)
}

fn expected(case: &Case, start: &World) -> Result<Vec<Expected>> {
    let mut world = start.clone();
    let mut all = Vec::new();
    for step in &case.steps {
        world.follow(&step.verb)?;
        all.push(Expected {
            cells: grid::judged(&world, &step.expect),
            world: world.clone(),
        });
    }
    Ok(all)
}

struct Script<'a> {
    case: &'a Case,
    stage: &'a mut dyn Stage,
    start: World,
    /// For each step.
    expected: Vec<Expected>,
    outcome: Outcome,
}

/// A cell between two addresses: a control holds for no others.
type Path = (Cell, Option<IpAddr>, Option<IpAddr>);

impl Script<'_> {
    /// Every cell that will be expected denied must be open without policies, in the first world
    /// in which its ends have the addresses that they will have then.
    fn controls(&mut self) -> Result<()> {
        let mut open: HashSet<Path> = HashSet::new();
        let mut wanted: Vec<Path> = Vec::new();
        for expected in &self.expected {
            let denied = expected.cells.iter().filter(|it| it.want == Want::Deny);
            wanted.extend(denied.map(|it| path(&it.cell, &expected.world)));
        }
        let worlds = self.expected.iter().map(|expected| &expected.world);
        let worlds: Vec<World> = std::iter::once(&self.start)
            .chain(worlds)
            .map(World::enforcing)
            .collect();
        for (number, world) in worlds.iter().enumerate() {
            let here: HashSet<Path> = wanted
                .iter()
                .filter(|it| exists(it, world) && !open.contains(*it))
                .cloned()
                .collect();
            if here.is_empty() && number > 0 {
                continue;
            }
            if let Some(refusal) = self.stage.update(world, &Policies::default())? {
                self.fault(&format!("without policies: {refusal}"));
                return Ok(());
            }
            let mut cells: Vec<Judged> = here.iter().map(|(cell, ..)| open_cell(cell)).collect();
            cells.sort_by(|a, b| a.cell.cmp(&b.cell));
            let misses = self.stage.closed(&cells)?;
            if !misses.is_empty() {
                self.fault("a control did not get through with no policy loaded");
                self.report("control", misses);
                return Ok(());
            }
            open.extend(here);
        }
        Ok(())
    }

    fn run(&mut self, order: Order) -> Result<()> {
        if !self.back_to_the_start(order)? {
            return Ok(());
        }
        let mut objects = Objects::default();
        let mut toml = String::new();
        let reversed = order == Order::Reversed;
        for (number, step) in self.case.steps.iter().enumerate() {
            let label = format!("{}{}", number + 1, order.suffix());
            let Some(expected) = self.expected.get(number) else {
                break;
            };
            let now = self.stage.now();
            let text = step.verb.text().unwrap_or_default();
            let text = substitution::fill_in(text, &expected.world, now)?;
            match &step.verb {
                Verb::Apply(_) => objects.apply(objects::split(&text)),
                Verb::ApplyToml(_) if reversed => toml = toml_blocks::reversed(&text),
                Verb::ApplyToml(_) => toml = text,
                Verb::Delete(keys) => {
                    for key in keys {
                        if let Err(error) = objects.delete(key) {
                            self.fault(&format!("step {label}: {error}"));
                            return Ok(());
                        }
                    }
                }
                Verb::Wait(span) => self.stage.wait(*span)?,
                Verb::Restart(how) => self.stage.restart(*how)?,
                Verb::Reject(_) => {
                    let candidate = objects::split(&text);
                    let names = candidate.iter().filter_map(|it| it.key.as_ref());
                    let names: Vec<String> = names.map(|key| key.name.clone()).collect();
                    let policies = Policies {
                        objects: objects.with(candidate).render(reversed),
                        toml: toml.clone(),
                    };
                    self.refused(number, &label, &policies, &names)?;
                }
                Verb::RejectToml(_) => {
                    let policies = Policies {
                        objects: objects.render(reversed),
                        toml: text.clone(),
                    };
                    self.refused(number, &label, &policies, &toml_blocks::names(&text))?;
                }
                Verb::LabelWorkload(..)
                | Verb::LabelNamespace(..)
                | Verb::Add(_)
                | Verb::Remove(_)
                | Verb::MoveAddress(..)
                | Verb::Mode(_) => {}
            }
            let policies = Policies {
                objects: objects.render(reversed),
                toml: toml.clone(),
            };
            let Some(expected) = self.expected.get(number) else {
                break;
            };
            if let Some(refusal) = self.stage.update(&expected.world, &policies)? {
                self.fault(&format!("step {label}: refused: {refusal}"));
                return Ok(());
            }
            let sight = self.stage.look(&expected.cells)?;
            self.report(&label, sight.misses);
            if let Some(complaint) = sight.complaint {
                self.fault(&format!("step {label}: the agent reports: {complaint}"));
            }
        }
        Ok(())
    }

    /// True if all is as before the first step: policies gone, and (seen before a second run) the
    /// cells that were denied open again.
    fn back_to_the_start(&mut self, order: Order) -> Result<bool> {
        if let Some(refusal) = self.stage.update(&self.start, &Policies::default())? {
            self.fault(&format!("without policies: {refusal}"));
            return Ok(false);
        }
        if order == Order::Written {
            return Ok(true);
        }
        let denied = self.expected.iter().flat_map(|expected| {
            let denied = expected.cells.iter().filter(|it| it.want == Want::Deny);
            denied.map(|it| path(&it.cell, &expected.world))
        });
        let here: HashSet<Path> = denied.filter(|it| exists(it, &self.start)).collect();
        let cells: Vec<Judged> = here.iter().map(|(cell, ..)| open_cell(cell)).collect();
        let misses = self.stage.closed(&cells)?;
        if misses.is_empty() {
            return Ok(true);
        }
        self.fault("something stayed closed after every policy was removed");
        self.report("reset", misses);
        Ok(false)
    }

    /// The policies must be refused with an error that names one of these, and change nothing.
    fn refused(
        &mut self,
        number: usize,
        label: &str,
        policies: &Policies,
        names: &[String],
    ) -> Result<()> {
        match self.stage.offer(policies)? {
            Reception::Accepted => self.fault(&format!("step {label}: was accepted")),
            Reception::Refused(error) if refusal::names_one_of(&error, names) => {}
            Reception::Refused(error) => {
                let names = names.join(" or ");
                self.fault(&format!(
                    "step {label}: refused, but the error does not name {names}: {error}"
                ));
            }
        }
        if let Some(expected) = self.expected.get(number) {
            // The complaint about what was offered stands.
            let sight = self.stage.look(&expected.cells)?;
            self.report(label, sight.misses);
        }
        Ok(())
    }

    fn restart_at_the_end(&mut self) -> Result<()> {
        let Some(last) = self.expected.last() else {
            return Ok(());
        };
        self.stage.restart(Stop::Kill)?;
        let sight = self.stage.look(&last.cells)?;
        self.report("restart", sight.misses);
        if let Some(complaint) = sight.complaint {
            self.fault(&format!("after a restart the agent reports: {complaint}"));
        }
        Ok(())
    }

    fn has_another_order(&self) -> bool {
        let mut all = Objects::default();
        self.case.steps.iter().any(|step| match &step.verb {
            Verb::Apply(text) => {
                all.apply(objects::split(text));
                all.render(false) != all.render(true)
            }
            Verb::ApplyToml(text) => toml_blocks::reversed(text).trim() != text.trim(),
            _ => false,
        })
    }

    fn report(&mut self, label: &str, misses: Vec<Miss>) {
        let labelled = misses.into_iter().map(|miss| (label.to_owned(), miss));
        self.outcome.misses.extend(labelled);
    }

    fn fault(&mut self, text: &str) {
        self.outcome.faults.push(text.to_owned());
    }
}

fn path(cell: &Cell, world: &World) -> Path {
    let address = |end| world.address(end, cell.family).ok();
    (cell.clone(), address(&cell.from), address(&cell.to))
}

/// Whether both ends exist in this world with these addresses.
fn exists(path: &Path, world: &World) -> bool {
    let (cell, from, to) = path;
    let has = |end: &super::name::End, address: &Option<IpAddr>| {
        let Some(name) = end.workload() else {
            return true;
        };
        world.workloads.get(name).is_some_and(|member| {
            let own: IpAddr = match cell.family {
                Family::V4 => member.addresses.ip4.into(),
                Family::V6 => member.addresses.ip6.into(),
            };
            Some(own) == *address
        })
    };
    has(&cell.from, from) && has(&cell.to, to)
}

fn open_cell(cell: &Cell) -> Judged {
    Judged {
        cell: cell.clone(),
        want: Want::Allow,
    }
}
