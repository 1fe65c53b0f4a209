//! The measurements on the wire as figures and as tables.

use super::metric::{Kind, Metric};
use super::rounds::{Measured, Taken};
use crate::figures::{Figure, Unit};
use crate::report::{heading, table};

/// The name of the denominator of a metric's ratios.
const fn limit(metric: Metric) -> &'static str {
    match metric.kind {
        Kind::Denied => "drop",
        _ => "noop",
    }
}

/// Every figure: the limit in nanoseconds, ratios to it, and how cost grows with peers.
pub(crate) fn figures(metrics: &[Metric], measured: &Measured, peers: &[u32]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for metric in metrics {
        let group = format!("wire/{metric}");
        let limits: Vec<f64> = of(measured, *metric)
            .flat_map(|(_, taken)| taken.iter().map(|taken| taken.limit))
            .collect();
        let name = format!("{group}/{}", limit(*metric));
        figures.push(Figure::of(name, Unit::Ns, &limits));
        for (fence, taken) in of(measured, *metric) {
            let ratios: Vec<f64> = taken.iter().map(|taken| taken.ratio()).collect();
            figures.push(Figure::of(format!("{group}/{fence}"), Unit::Ratio, &ratios));
        }
        let (fewest, most) = (peers.iter().min(), peers.iter().max());
        let at = |peers: Option<&u32>| {
            let name = format!("enforce@{}", peers.copied().unwrap_or_default());
            measured.get(&(*metric, name))
        };
        if let (Some(few), Some(many)) = (at(fewest), at(most))
            && fewest != most
        {
            let pairs = few.iter().zip(many);
            let growth: Vec<f64> = pairs
                .map(|(few, many)| many.ratio() / few.ratio())
                .collect();
            figures.push(Figure::of(format!("{group}/peers"), Unit::Ratio, &growth));
        }
    }
    figures
}

/// A table for each metric.
pub(crate) fn print(metrics: &[Metric], measured: &Measured) {
    for metric in metrics {
        heading(&format!("{metric}: {}", metric.operation()));
        let mut rows = Vec::new();
        for (fence, taken) in of(measured, *metric) {
            let of = |value: fn(&Taken) -> f64| -> Figure {
                let values: Vec<f64> = taken.iter().map(value).collect();
                Figure::of("", Unit::Ns, &values)
            };
            let (limit, own) = (of(|taken| taken.limit), of(|taken| taken.fence));
            let above = of(|taken| taken.fence - taken.limit);
            let ratio = of(|taken| taken.ratio());
            rows.push(vec![
                fence.to_owned(),
                format!("{:.3}", ratio.median),
                format!("{:.3}–{:.3}", ratio.low, ratio.high),
                format!("{:.0}", own.median),
                format!("{:.0}", limit.median),
                format!("{:.0}", above.median),
                ratio.samples.to_string(),
            ]);
        }
        let limit = format!("{} ns", limit(*metric));
        let head = ["", "ratio", "quartiles", "ns", &limit, "above", "rounds"];
        table(&head, &rows);
    }
}

/// The fences for which a metric was measured.
fn of(measured: &Measured, metric: Metric) -> impl Iterator<Item = (&str, &Vec<Taken>)> {
    let of = measured.iter().filter(move |((of, _), _)| *of == metric);
    of.map(|((_, fence), taken)| (fence.as_str(), taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_from_the_fewest_peers_to_the_most_within_a_round() {
        let metric = Metric {
            kind: Kind::Established,
            v6: false,
        };
        let taken = |limit, fence| Taken { limit, fence };
        let measured = Measured::from([
            (
                (metric, "enforce@10".to_owned()),
                vec![taken(10.0, 11.0), taken(20.0, 22.0)],
            ),
            (
                (metric, "enforce@100".to_owned()),
                vec![taken(10.0, 22.0), taken(20.0, 44.0)],
            ),
        ]);
        let figures = figures(&[metric], &measured, &[100, 10]);
        let median = |name: &str| {
            let found = figures.iter().find(|figure| figure.name == name);
            found.map(|figure| figure.median).unwrap()
        };
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-9;
        assert!(near(median("wire/established-udp4/noop"), 10.0));
        assert!(near(median("wire/established-udp4/enforce@10"), 1.1));
        assert!(near(median("wire/established-udp4/enforce@100"), 2.2));
        assert!(near(median("wire/established-udp4/peers"), 2.0));
    }
}
