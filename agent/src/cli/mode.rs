//! `ringfence mode get`, `ringfence mode set` and `ringfence mode unset`.
//!
//! The kernel programs apply modes; the agent stores them across restarts.

use anyhow::Result;
use serde_json::Value;

use super::arguments::Listing;
use super::table::{Table, escape};
use super::{InvalidInput, listing, output};
use crate::model::{ModeName, NamespaceName};
use crate::server::Client;
use crate::server::view::{ModeSource, ModeView, SetMode};

#[derive(Debug, clap::Subcommand)]
pub(super) enum ModeCommand {
    /// Show the mode of a namespace, or of all namespaces.
    Get {
        /// The namespace.
        namespace: Option<NamespaceName>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Change the mode of a namespace on this node; the change survives restarts.
    ///
    /// It holds whatever the configuration, a floor or a label says, until `mode unset`.
    ///
    /// `observe` evaluates and reports, but never drops. `enforce` drops what policy denies,
    /// established connections included. `lockdown` drops everything.
    Set {
        /// The namespace.
        namespace: NamespaceName,
        /// observe, enforce or lockdown.
        mode: ModeName,
    },
    /// End what `mode set` has set: configuration, floor and label decide again.
    Unset {
        /// The namespace.
        namespace: NamespaceName,
    },
}

pub(super) async fn run(client: &Client, command: &ModeCommand) -> Result<()> {
    match command {
        ModeCommand::Get { namespace, listing } => get(client, namespace.as_ref(), listing).await,
        ModeCommand::Set { namespace, mode } => {
            let target = format!("/v1/modes/{namespace}");
            let body = SetMode { mode: *mode };
            print(&client.put(&target, &body).await?)
        }
        ModeCommand::Unset { namespace } => {
            let target = format!("/v1/modes/{namespace}");
            print(&client.delete(&target).await?)
        }
    }
}

async fn get(client: &Client, namespace: Option<&NamespaceName>, how: &Listing) -> Result<()> {
    let mut response: Value = client.get("/v1/modes").await?;
    if let Some(namespace) = namespace
        && let Some(views) = response.as_array_mut()
    {
        let name = Some(namespace.as_str());
        views.retain(|view| view.get("namespace").and_then(Value::as_str) == name);
        if views.is_empty() {
            return Err(InvalidInput(format!("unknown namespace {namespace}")).into());
        }
    }
    listing::print(response, how.output, table)
}

fn print(view: &ModeView) -> Result<()> {
    let mut text = format!("{}: {}\n", escape(&view.namespace), view.mode);
    if let Some(reason) = &view.unstored {
        text += &format!("warning: {}\n", escape(reason));
    }
    output::print(&text)
}

fn table(views: Vec<ModeView>) -> Table {
    let mut table = Table::new(&["NAMESPACE", "MODE", "SOURCE"]);
    for view in views {
        let source = match view.source {
            ModeSource::Config => "config",
            ModeSource::Set if view.unstored.is_some() => "set here, not stored",
            ModeSource::Set => "set here",
            ModeSource::Floor => "floor",
            ModeSource::Label => "label",
        };
        table.row([view.namespace, view.mode.to_string(), source.into()]);
    }
    table
}
