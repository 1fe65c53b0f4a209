//! `GET /v1/explain`: why a flow is allowed or denied by the policies in force.
//!
//! Invariant: a query that names something unknown is a bad request, never an empty response.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::api::ApiError;
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
) -> Result<Json<Explanation>, ApiError> {
    let Query(parameters) = query?;
    let query = policy::Query {
        from: value::test_end(&parameters.from).map_err(ApiError::bad_request)?,
        to: value::test_end(&parameters.to).map_err(ApiError::bad_request)?,
        port: value::test_port(&parameters.port).map_err(ApiError::bad_request)?,
        family: parameters.family,
    };
    control
        .views
        .explain(&query, parameters.all)
        .map(Json)
        .map_err(ApiError::bad_request)
}
