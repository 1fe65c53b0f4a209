//! Runs one case: controls, the steps, the steps with policies in reverse order, a restart.
//!
//! All expectations are computed before the first step. If one of these runs fails, the following
//! ones are skipped.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::Result;

use super::backend::{Backend, Policies, Submission};
use super::case::{Case, Stop, Verb};
use super::cluster::Cluster;
use super::grid::{self, Cell, ExpectedCell, Mismatch, Want};
use super::objects::{self, Objects};
use super::port::Family;
use super::{refusal, substitution, toml_blocks};

/// The result of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// A step's label, and a cell that was not as expected after it.
    pub(super) mismatches: Vec<(String, Mismatch)>,
    /// Other errors.
    pub(super) errors: Vec<String>,
}

impl Outcome {
    /// Whether everything was as expected.
    pub(super) fn passed(&self) -> bool {
        self.mismatches.is_empty() && self.errors.is_empty()
    }
}

/// The cluster and the expected cells after a step.
struct Expected {
    cluster: Cluster,
    cells: Vec<ExpectedCell>,
}

/// The order of the documents of a step.
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

/// Runs the whole case. An error means that the backend failed.
pub(super) fn run_case(case: &Case, backend: &mut dyn Backend) -> Result<Outcome> {
    let start = Cluster::new(case, backend.host_addresses())?;
    let mut run = CaseRun {
        case,
        backend,
        expected: expected(case, &start)?,
        start,
        outcome: Outcome::default(),
    };
    run.controls()?;
    if run.outcome.passed() {
        run.run(Order::Written)?;
    }
    if run.outcome.passed() && run.order_can_be_reversed() {
        run.run(Order::Reversed)?;
    }
    if run.outcome.passed() {
        run.final_restart()?;
    }
    Ok(run.outcome)
}

fn expected(case: &Case, start: &Cluster) -> Result<Vec<Expected>> {
    let mut cluster = start.clone();
    let mut all = Vec::new();
    for step in &case.steps {
        cluster.apply(&step.verb)?;
        all.push(Expected {
            cells: grid::expected_cells(&cluster, &step.expect),
            cluster: cluster.clone(),
        });
    }
    Ok(all)
}

struct CaseRun<'a> {
    case: &'a Case,
    backend: &'a mut dyn Backend,
    start: Cluster,
    /// For each step.
    expected: Vec<Expected>,
    outcome: Outcome,
}

/// A cell with both addresses: a control is valid only for these.
type Path = (Cell, Option<IpAddr>, Option<IpAddr>);

impl CaseRun<'_> {
    /// Every cell that will be expected to be denied must be open without policies, in the first
    /// cluster state in which its ends have the addresses that they will have then.
    fn controls(&mut self) -> Result<()> {
        let mut open: HashSet<Path> = HashSet::new();
        let mut wanted: Vec<Path> = Vec::new();
        for expected in &self.expected {
            let denied = expected.cells.iter().filter(|it| it.want == Want::Deny);
            wanted.extend(denied.map(|it| path(&it.cell, &expected.cluster)));
        }
        let clusters = self.expected.iter().map(|expected| &expected.cluster);
        let clusters: Vec<Cluster> = std::iter::once(&self.start)
            .chain(clusters)
            .map(Cluster::enforcing)
            .collect();
        for (number, cluster) in clusters.iter().enumerate() {
            let here: HashSet<Path> = wanted
                .iter()
                .filter(|it| exists(it, cluster) && !open.contains(*it))
                .cloned()
                .collect();
            if here.is_empty() && number > 0 {
                continue;
            }
            if let Some(refusal) = self.backend.update(cluster, &Policies::default())? {
                self.error(&format!("without policies: {refusal}"));
                return Ok(());
            }
            let mut cells: Vec<ExpectedCell> =
                here.iter().map(|(cell, ..)| open_cell(cell)).collect();
            cells.sort_by(|a, b| a.cell.cmp(&b.cell));
            let mismatches = self.backend.check_controls(&cells)?;
            if !mismatches.is_empty() {
                self.error("a control was not delivered although no policy was loaded");
                self.report("control", mismatches);
                return Ok(());
            }
            open.extend(here);
        }
        Ok(())
    }

    fn run(&mut self, order: Order) -> Result<()> {
        if !self.reset(order)? {
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
            let now = self.backend.now();
            let text = step.verb.text().unwrap_or_default();
            let text = substitution::fill_in(text, &expected.cluster, now)?;
            match &step.verb {
                Verb::Apply(_) => objects.apply(objects::split(&text)),
                Verb::ApplyToml(_) if reversed => toml = toml_blocks::reversed(&text),
                Verb::ApplyToml(_) => toml = text,
                Verb::Delete(keys) => {
                    for key in keys {
                        if let Err(error) = objects.delete(key) {
                            self.error(&format!("step {label}: {error}"));
                            return Ok(());
                        }
                    }
                }
                Verb::Wait(span) => self.backend.wait(*span)?,
                Verb::Restart(how) => self.backend.restart(*how)?,
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
            if let Some(refusal) = self.backend.update(&expected.cluster, &policies)? {
                self.error(&format!("step {label}: refused: {refusal}"));
                return Ok(());
            }
            let result = self.backend.check(&expected.cells)?;
            self.report(&label, result.mismatches);
            if let Some(agent_error) = result.agent_error {
                self.error(&format!("step {label}: the agent reports: {agent_error}"));
            }
        }
        Ok(())
    }

    /// Removes all policies and restores the initial cluster. Before the second run it also checks
    /// that the denied cells are open again; returns false if they are not.
    fn reset(&mut self, order: Order) -> Result<bool> {
        if let Some(refusal) = self.backend.update(&self.start, &Policies::default())? {
            self.error(&format!("without policies: {refusal}"));
            return Ok(false);
        }
        if order == Order::Written {
            return Ok(true);
        }
        let denied = self.expected.iter().flat_map(|expected| {
            let denied = expected.cells.iter().filter(|it| it.want == Want::Deny);
            denied.map(|it| path(&it.cell, &expected.cluster))
        });
        let here: HashSet<Path> = denied.filter(|it| exists(it, &self.start)).collect();
        let cells: Vec<ExpectedCell> = here.iter().map(|(cell, ..)| open_cell(cell)).collect();
        let mismatches = self.backend.check_controls(&cells)?;
        if mismatches.is_empty() {
            return Ok(true);
        }
        self.error("cells stayed closed after all policies were removed");
        self.report("reset", mismatches);
        Ok(false)
    }

    /// The policies must be refused with an error that contains one of the names, and change
    /// nothing.
    fn refused(
        &mut self,
        number: usize,
        label: &str,
        policies: &Policies,
        names: &[String],
    ) -> Result<()> {
        match self.backend.submit(policies)? {
            Submission::Accepted => {
                self.error(&format!("step {label}: accepted, but should be refused"));
            }
            Submission::Refused(error) if refusal::names_one_of(&error, names) => {}
            Submission::Refused(error) => {
                let names = names.join(" or ");
                self.error(&format!(
                    "step {label}: refused, but the error does not name {names}: {error}"
                ));
            }
        }
        if let Some(expected) = self.expected.get(number) {
            // The agent still reports the error about the submitted policies.
            let result = self.backend.check(&expected.cells)?;
            self.report(label, result.mismatches);
        }
        Ok(())
    }

    fn final_restart(&mut self) -> Result<()> {
        let Some(last) = self.expected.last() else {
            return Ok(());
        };
        self.backend.restart(Stop::Kill)?;
        let result = self.backend.check(&last.cells)?;
        self.report("restart", result.mismatches);
        if let Some(agent_error) = result.agent_error {
            self.error(&format!("after a restart the agent reports: {agent_error}"));
        }
        Ok(())
    }

    fn order_can_be_reversed(&self) -> bool {
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

    fn report(&mut self, label: &str, mismatches: Vec<Mismatch>) {
        let labelled = mismatches
            .into_iter()
            .map(|mismatch| (label.to_owned(), mismatch));
        self.outcome.mismatches.extend(labelled);
    }

    fn error(&mut self, text: &str) {
        self.outcome.errors.push(text.to_owned());
    }
}

fn path(cell: &Cell, cluster: &Cluster) -> Path {
    let address = |end| cluster.address(end, cell.family).ok();
    (cell.clone(), address(&cell.from), address(&cell.to))
}

/// Whether both ends exist in this cluster with these addresses.
fn exists(path: &Path, cluster: &Cluster) -> bool {
    let (cell, from, to) = path;
    let has = |end: &super::name::End, address: &Option<IpAddr>| {
        let Some(name) = end.workload() else {
            return true;
        };
        cluster.workloads.get(name).is_some_and(|member| {
            let own: IpAddr = match cell.family {
                Family::V4 => member.addresses.ip4.into(),
                Family::V6 => member.addresses.ip6.into(),
            };
            Some(own) == *address
        })
    };
    has(&cell.from, from) && has(&cell.to, to)
}

fn open_cell(cell: &Cell) -> ExpectedCell {
    ExpectedCell {
        cell: cell.clone(),
        want: Want::Allow,
    }
}
