//! Requests that alternately allow and deny the probe.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::interrupt;

use super::probe::Probe;
use crate::figures::{Figure, Unit};
use crate::report::distribution;

/// Requests before the first that counts: they find cold caches, or work left over from an earlier
/// series.
const WARM_UP: usize = 2;

/// The times of two requests that reverse each other.
pub(super) struct Series {
    /// The request that allows the probe.
    opening: (&'static str, Vec<Duration>),
    /// The request that denies it; with the same name if both are one kind of request.
    closing: (&'static str, Vec<Duration>),
    /// The system that is measured, and the number of peers.
    variant: String,
}

impl Series {
    /// Measures `times` requests. `prepare` does what may be done before the clock starts. At first
    /// the probe must be denied, or about to be.
    pub(super) fn measure<R: FnOnce() -> Result<()>>(
        (opening, closing): (&'static str, &'static str),
        variant: String,
        probe: &mut Probe,
        times: usize,
        mut prepare: impl FnMut(bool, usize) -> Result<R>,
    ) -> Result<Self> {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        let denied = probe.wait_for(false);
        denied.with_context(|| format!("before {opening} of {variant}"))?;
        for round in 0..WARM_UP + times.next_multiple_of(2) {
            interrupt::check()?;
            let open = round % 2 == 0;
            let name = if open { opening } else { closing };
            let took = probe.time(open, prepare(open, round)?);
            let took = took.with_context(|| format!("{name} of {variant}, round {round}"))?;
            if round >= WARM_UP {
                if open { &mut opened } else { &mut closed }.push(took);
            }
        }
        Ok(Self {
            opening: (opening, opened),
            closing: (closing, closed),
            variant,
        })
    }

    /// One figure, or two if there are two kinds of requests.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let kinds = self.kinds();
        let figure = |(name, samples): &(&str, Vec<Duration>)| {
            let samples: Vec<f64> = samples
                .iter()
                .map(|took| took.as_secs_f64() * 1e3)
                .collect();
            Figure::of(
                format!("control/{name}/{}", self.variant),
                Unit::Ms,
                &samples,
            )
        };
        kinds.iter().map(figure).collect()
    }

    /// The figures as rows of a table.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let kinds = self.kinds();
        let row = |(name, samples): &(&str, Vec<Duration>)| {
            let mut row = vec![
                (*name).to_owned(),
                self.variant.clone(),
                samples.len().to_string(),
            ];
            row.extend(distribution(samples));
            row
        };
        kinds.iter().map(row).collect()
    }

    fn kinds(&self) -> Vec<(&'static str, Vec<Duration>)> {
        if self.opening.0 == self.closing.0 {
            let all = [self.opening.1.as_slice(), &self.closing.1].concat();
            vec![(self.opening.0, all)]
        } else {
            vec![self.opening.clone(), self.closing.clone()]
        }
    }
}
