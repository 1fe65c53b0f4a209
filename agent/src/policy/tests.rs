//! The policy engine against an oracle that shares no code with it, and against its own promises
//! about what a change may touch.
//!
//! `RINGFENCE_PROPTEST_CASES` sets how many random policy sets the oracle is compared on.

mod agreement;
mod everywhere;
mod explained;
mod kernel;
mod promises;
mod shape;
mod transition;
mod worlds;

/// How many cases a property runs, given how many an ordinary run asks for.
fn cases(ordinary: u32) -> proptest::test_runner::Config {
    let asked = std::env::var("RINGFENCE_PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    let cases = asked.unwrap_or(ordinary);
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}
