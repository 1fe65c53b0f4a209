//! Fetches a listing and prints it as a table or as JSON.
//!
//! Invariant: JSON is printed as the agent sent it, including fields that this version does not
//! know. The caller decides the columns of a table.

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
    let response: Value = client.get(target).await?;
    print(response, format, table)
}

/// Prints a response.
pub(super) fn print<T: DeserializeOwned>(
    response: Value,
    format: Format,
    table: impl FnOnce(Vec<T>) -> Table,
) -> Result<()> {
    match format {
        Format::Json => output::print_json(&response),
        Format::Table => output::print(&table(parse(response)?).render()),
    }
}

/// Parses a response as the expected type.
pub(super) fn parse<T: DeserializeOwned>(response: Value) -> Result<T> {
    serde_json::from_value(response)
        .context("cannot parse the agent's response (does the agent have another version?)")
}

/// The items of a list in one cell.
pub(super) fn joined(items: &[String]) -> String {
    items.join(",")
}
