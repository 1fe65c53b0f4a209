//! `GET /v1/explain`: why a flow is allowed or denied by what is in force.
//!
//! Invariant: a query that names what does not exist is a bad request, never an empty answer.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::api::Refusal;
use super::control::Control;
use crate::policy::{self, Explanation};
use crate::source::value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    from: String,
    to: String,
    port: String,
    family: Option<u8>,
    #[serde(default)]
    all: bool,
}

pub(super) async fn explain(
    State(control): State<Control>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Explanation>, Refusal> {
    let Query(asked) = query?;
    let query = policy::Query {
        from: value::test_end(&asked.from).map_err(Refusal::bad_request)?,
        to: value::test_end(&asked.to).map_err(Refusal::bad_request)?,
        port: value::test_port(&asked.port).map_err(Refusal::bad_request)?,
        family: asked.family,
    };
    control
        .views
        .explain(&query, asked.all)
        .map(Json)
        .map_err(Refusal::bad_request)
}
