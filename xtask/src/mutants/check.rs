//! Finds each seeded bug in the sources, and reports those that do not fit.
//!
//! A bug whose code is gone, is found several times or is not a whole expression is a finding that
//! names it, and so is everything else that would make a run useless. Nothing is built or changed
//! here, so `cargo xtask lint` and the tests of xtask can check it quickly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::catalogue::{self, Catalogue, Edit, Mutant};
use super::expressions::{self, Expressions, Kind};
use super::matching::{self, Code, NotFound};
use super::{suites, switch};
use crate::lint::Finding;
use crate::lint::source::SourceFile;

/// The code that ships.
const SHIPPED: [&str; 3] = ["agent/src/", "common/src/", "ebpf/src/"];

/// The sources that bugs are in, by path.
pub(super) type Sources = BTreeMap<String, String>;

/// A place that was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) bytes: Range<usize>,
    pub(super) kind: Kind,
    /// The bug that is here; `None` if the replacement always holds.
    pub(super) name: Option<String>,
    pub(super) replacement: String,
}

/// All places, by file.
pub(super) type Places = BTreeMap<String, Vec<Place>>;

/// What is wrong with the seeded bugs of the checkout.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let catalogue = catalogue::load(root)?;
    let sources = sources(root, &catalogue)?;
    Ok(places(&catalogue, &sources).1)
}

/// Every source that the catalogue names, as far as it is there.
pub(super) fn sources(root: &Path, catalogue: &Catalogue) -> Result<Sources> {
    let of_bugs = catalogue.mutants.iter().flat_map(|mutant| &mutant.edits);
    let edits = of_bugs.chain(catalogue.setup.iter().map(|setup| &setup.edit));
    let names: BTreeSet<&String> = edits.map(|edit| &edit.file).collect();
    let there = names
        .into_iter()
        .filter(|name| ships(name) && root.join(name).is_file());
    there
        .map(|name| {
            let text = fs::read_to_string(root.join(name));
            Ok((
                name.clone(),
                text.with_context(|| format!("cannot read {name}"))?,
            ))
        })
        .collect()
}

fn ships(path: &str) -> bool {
    SHIPPED
        .iter()
        .any(|crate_root| path.starts_with(crate_root))
        && !path.split('/').any(|part| part == "..")
        && !SourceFile::new(path, "").is_test()
}

/// The places of all bugs, and the findings.
pub(super) fn places(catalogue: &Catalogue, sources: &Sources) -> (Places, Vec<Finding>) {
    let mut search = Search::new(sources);
    let mut names = BTreeMap::new();
    for mutant in &catalogue.mutants {
        for message in objections(mutant, &mut names) {
            search.report(mutant, &message);
        }
        for edit in &mutant.edits {
            match search.bug(mutant, edit) {
                Ok(place) => search
                    .places
                    .entry(edit.file.clone())
                    .or_default()
                    .push(place),
                Err(message) => search.report(mutant, &message),
            }
        }
    }
    for setup in &catalogue.setup {
        match search.find(&setup.edit) {
            Ok(bytes) => search
                .places
                .entry(setup.edit.file.clone())
                .or_default()
                .push(Place {
                    bytes,
                    kind: Kind::Plain,
                    name: None,
                    replacement: setup.edit.replacement.clone(),
                }),
            Err(message) => search.findings.push(Finding {
                place: setup.origin.clone(),
                message: format!("setup of {}: {message}", setup.edit.file),
            }),
        }
    }
    search.sort();
    (search.places, search.findings)
}

/// Findings that do not need the sources.
fn objections(mutant: &Mutant, names: &mut BTreeMap<u32, String>) -> Vec<String> {
    let mut found = Vec::new();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !mutant.name.starts_with(|c: char| c.is_ascii_lowercase()) || !mutant.name.chars().all(plain)
    {
        found.push("the name must be of a-z, 0-9 and _".to_owned());
    }
    match names.insert(switch::number(&mutant.name), mutant.name.clone()) {
        Some(other) if other == mutant.name => found.push("another bug has this name".to_owned()),
        Some(other) => found.push(format!(
            "the number of this name is that of {other}: rename it"
        )),
        None => {}
    }
    if !mutant.bug.contains(' ') || !mutant.bug.ends_with('.') {
        found.push("`bug` must say what goes wrong, in one sentence".to_owned());
    }
    if suites::parse(&mutant.suite).is_none() {
        found.push(format!(
            "no suite is called `{}`: expected a test program ({}) or one of its modules, as in kernel::fragments",
            mutant.suite,
            suites::names().join(", ")
        ));
    }
    found
}

/// Files that are read once for all bugs in them.
struct Search<'a> {
    sources: &'a Sources,
    read: HashMap<String, (Code<'a>, Result<Expressions>)>,
    places: Places,
    findings: Vec<Finding>,
}

impl<'a> Search<'a> {
    fn new(sources: &'a Sources) -> Self {
        Self {
            sources,
            read: HashMap::new(),
            places: Places::new(),
            findings: Vec::new(),
        }
    }

    fn report(&mut self, mutant: &Mutant, message: &str) {
        self.findings.push(Finding {
            place: mutant.origin.clone(),
            message: format!("{}: {message}", mutant.name),
        });
    }

    fn file(&mut self, path: &str) -> Result<(&'a str, &(Code<'a>, Result<Expressions>)), String> {
        let text = self.sources.get(path).ok_or_else(|| {
            format!("{path} is no source file that ships: name the file that has the code now")
        })?;
        let read = self.read.entry(path.to_owned());
        Ok((
            text,
            read.or_insert_with(|| (Code::new(text), Expressions::of(text))),
        ))
    }

    /// The bytes of an edit's text.
    fn find(&mut self, edit: &Edit) -> Result<Range<usize>, String> {
        let (text, (code, _)) = self.file(&edit.file)?;
        let Some(within) = &edit.within else {
            return code.find(&edit.text).map_err(|reason| {
                not_found(
                    reason,
                    "text",
                    &edit.text,
                    &edit.file,
                    "add `within`, with what is around it",
                )
            });
        };
        let outer = code.find(within).map_err(|reason| {
            not_found(
                reason,
                "within",
                within,
                &edit.file,
                "take in more of what is around it",
            )
        })?;
        let inner = Code::new(text.get(outer.clone()).unwrap_or_default()).find(&edit.text);
        let inner = inner.map_err(|reason| {
            not_found(
                reason,
                "text",
                &edit.text,
                "`within`",
                "leave some of `within` out",
            )
        })?;
        Ok(outer.start + inner.start..outer.start + inner.end)
    }

    fn bug(&mut self, mutant: &Mutant, edit: &Edit) -> Result<Place, String> {
        let bytes = self.find(edit)?;
        if matching::same(&edit.text, &edit.replacement) {
            return Err(format!(
                "the replacement of `{}` is the same code",
                edit.text
            ));
        }
        if !expressions::is_expression(&edit.replacement) {
            return Err(format!("`{}` is no expression", edit.replacement));
        }
        let (_, (_, expressions)) = self.file(&edit.file)?;
        let expressions = expressions
            .as_ref()
            .map_err(|error| format!("{}: {error:#}", edit.file))?;
        let objection = match expressions.at(&bytes) {
            Some(kind @ (Kind::Plain | Kind::Field | Kind::Statement)) => {
                return Ok(Place {
                    bytes,
                    kind,
                    name: Some(mutant.name.clone()),
                    replacement: edit.replacement.clone(),
                });
            }
            Some(Kind::Constant) => "is evaluated by the compiler: change the code that uses it",
            Some(Kind::Binding) => "binds a name: take only the expression that it is bound to",
            None => "is not one whole expression there: take in the rest of it",
        };
        Err(format!("`{}` {objection}", edit.text))
    }

    /// Puts outer places before those inside them, and objects to those that overlap otherwise.
    fn sort(&mut self) {
        for (path, places) in &mut self.places {
            places.sort_by_key(|place| (place.bytes.start, std::cmp::Reverse(place.bytes.end)));
            // Of several bugs in the very same place, one takes care of what is around it.
            let mut last = None;
            for place in places.iter_mut() {
                if last.as_ref() == Some(&place.bytes) {
                    place.kind = Kind::Plain;
                }
                last = Some(place.bytes.clone());
            }
            let mut around: Vec<&Place> = Vec::new();
            for place in places.iter() {
                around.retain(|outer| outer.bytes.end > place.bytes.start);
                let crossed = around.iter().find(|outer| {
                    outer.bytes.end < place.bytes.end
                        || outer.name == place.name
                        || outer.name.is_none()
                });
                if let Some(outer) = crossed {
                    self.findings.push(Finding {
                        place: path.clone(),
                        message: format!(
                            "{} and {} overlap: move one of them",
                            told(outer),
                            told(place)
                        ),
                    });
                }
                around.push(place);
            }
        }
    }
}

fn told(place: &Place) -> &str {
    place.name.as_deref().unwrap_or("the setup")
}

fn not_found(reason: NotFound, what: &str, piece: &str, place: &str, remedy: &str) -> String {
    let piece = piece.split_whitespace().collect::<Vec<_>>().join(" ");
    match reason {
        NotFound::Gone => {
            format!("{what} `{piece}` is not in {place}: write the code as it is now")
        }
        NotFound::Ambiguous(times) => {
            format!("{what} `{piece}` is {times} times in {place}: {remedy}")
        }
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
