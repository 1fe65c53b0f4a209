//! `ringfence probe`: the probes of a pod, asked over the agent's own socket.
//!
//! A probe over HTTP would reach whichever agent of the node holds the port. Invariants: *live* depends on this
//! process alone, neither on an API server nor on any object or file that the agent was given; *ready* is as in
//! `/readyz`: what was asked for and can be read is in force.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::output;
use super::table::escape;
use crate::server::Client;
use crate::server::view::Status;

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Question {
    /// Whether the agent answers at all.
    Live,
    /// Whether everything that was asked for is in force.
    Ready,
}

pub(super) async fn run(client: &Client, question: Question) -> Result<ExitCode> {
    let status: Status = client.get("/v1/status").await?;
    let (text, is_so) = answer(&status, question);
    output::print(&format!("{}\n", escape(&text)))?;
    Ok(if is_so {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn answer(status: &Status, question: Question) -> (String, bool) {
    if question == Question::Live || status.ready {
        return ("ok".to_owned(), true);
    }
    let reason = status.not_in_force.first();
    let reason = reason.map_or("nothing is in force yet".to_owned(), |it| {
        format!("{}: {}", it.kind, it.text)
    });
    (reason, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::view::NotInForceView;

    #[test]
    fn an_agent_lives_whatever_it_was_given() {
        let mut status = Status {
            errors: vec!["kubernetes: the API server cannot be asked".to_owned()],
            not_in_force: vec![NotInForceView {
                kind: "unfenced".to_owned(),
                text: "shop/a".to_owned(),
            }],
            ..Status::default()
        };
        assert!(answer(&status, Question::Live).1);
        let not_ready = ("unfenced: shop/a".to_owned(), false);
        assert_eq!(answer(&status, Question::Ready), not_ready);
        status.not_in_force.clear();
        assert!(!answer(&status, Question::Ready).1);
        // An object that cannot be read is an error, and does not take the node out of service.
        status.ready = true;
        assert!(answer(&status, Question::Ready).1);
    }
}
