//! What every listing does: fetch, then print as a table or as JSON.
//!
//! Invariants: JSON is printed as the agent sent it, fields that this version does not know
//! included. Which columns a table has is decided by the caller.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::Format;
use super::output;
use super::table::Table;
use crate::server::Client;

/// Fetches `target` and prints it.
pub(super) async fn show<T: DeserializeOwned>(
    client: &Client,
    target: &str,
    format: Format,
    table: impl FnOnce(Vec<T>) -> Table,
) -> Result<()> {
    let answer: Value = client.get(target).await?;
    print(answer, format, table)
}

/// Prints an answer.
pub(super) fn print<T: DeserializeOwned>(
    answer: Value,
    format: Format,
    table: impl FnOnce(Vec<T>) -> Table,
) -> Result<()> {
    match format {
        Format::Json => output::print_json(&answer),
        Format::Table => output::print(&table(parse(answer)?).render()),
    }
}

/// Reads an answer as what it should be.
pub(super) fn parse<T: DeserializeOwned>(answer: Value) -> Result<T> {
    serde_json::from_value(answer)
        .context("the agent's answer cannot be read (is it of another version?)")
}

/// A list in one cell.
pub(super) fn joined(items: &[String]) -> String {
    items.join(",")
}
