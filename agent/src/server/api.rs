//! Paths, parameters and bodies of the control API.
//!
//! Invariants: every response is JSON, errors as `{"error": …}`; request bodies are limited; a
//! command that the application does not process gets a 503, never a success. `flows` has the flow
//! stream.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::control::{Command, Control, Outcome};
use super::explain;
use super::flows;
use super::view::{
    EndpointView, ErrorBody, IdentityView, ModeView, PolicyView, RuleView, SetMode, Status,
};
use crate::model::{ModeName, NamespaceName};

/// The largest request body.
const BODY_LIMIT: usize = 64 * 1024;

pub(super) fn router(control: Control) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/identities", get(identities))
        .route("/v1/policies", get(policies))
        .route("/v1/rules", get(rules))
        .route("/v1/modes", get(modes))
        .route("/v1/modes/{namespace}", put(set_mode).delete(unset_mode))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/flows", get(flows::flows))
        .route("/v1/reload", post(reload))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "no such path") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed for this path",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(control)
}

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "fits map_err")]
    pub(super) fn bad_request<E: std::fmt::Display>(error: E) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

async fn status(State(control): State<Control>) -> Json<Status> {
    Json(control.views.status())
}

async fn endpoints(State(control): State<Control>) -> Json<Vec<EndpointView>> {
    Json(control.views.endpoints())
}

async fn identities(State(control): State<Control>) -> Json<Vec<IdentityView>> {
    Json(control.views.identities())
}

async fn policies(State(control): State<Control>) -> Json<Vec<PolicyView>> {
    Json(control.views.policies())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleQuery {
    /// Only rules that made no verdict in this many seconds.
    unused: Option<u32>,
}

async fn rules(
    State(control): State<Control>,
    query: Result<Query<RuleQuery>, QueryRejection>,
) -> Result<Json<Vec<RuleView>>, ApiError> {
    let Query(query) = query?;
    let mut rules = control.views.rules();
    if let Some(seconds) = query.unused {
        let limit = Timestamp::now() - SignedDuration::from_secs(i64::from(seconds));
        rules.retain(|rule| rule.policy.is_some() && rule.last_hit.is_none_or(|hit| hit < limit));
    }
    Ok(Json(rules))
}

async fn modes(State(control): State<Control>) -> Json<Vec<ModeView>> {
    Json(control.views.modes())
}

async fn set_mode(
    State(control): State<Control>,
    namespace: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ModeView>, ApiError> {
    let SetMode { mode } = serde_json::from_slice(&body?).map_err(ApiError::bad_request)?;
    change_mode(&control, namespace, Some(mode)).await
}

async fn unset_mode(
    State(control): State<Control>,
    namespace: Result<Path<String>, PathRejection>,
) -> Result<Json<ModeView>, ApiError> {
    change_mode(&control, namespace, None).await
}

async fn change_mode(
    control: &Control,
    namespace: Result<Path<String>, PathRejection>,
    mode: Option<ModeName>,
) -> Result<Json<ModeView>, ApiError> {
    let Path(namespace) = namespace?;
    let namespace = NamespaceName::new(&namespace).map_err(ApiError::bad_request)?;
    let wanted = namespace.clone();
    command(control, |reply| Command::SetMode {
        namespace: wanted,
        mode,
        reply,
    })
    .await?;
    let now = control.views.modes().into_iter();
    let view = now
        .into_iter()
        .find(|view| view.namespace == namespace.as_str());
    view.map(Json).ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("namespace {namespace} no longer exists"),
        )
    })
}

async fn reload(State(control): State<Control>) -> Result<Json<Status>, ApiError> {
    command(&control, |reply| Command::Reload { reply }).await?;
    Ok(Json(control.views.status()))
}

async fn command(
    control: &Control,
    make: impl FnOnce(oneshot::Sender<Outcome>) -> Command,
) -> Result<(), ApiError> {
    let gone = || {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is shutting down",
        )
    };
    let (reply, outcome) = oneshot::channel();
    control
        .commands
        .send(make(reply))
        .await
        .map_err(|_| gone())?;
    match outcome.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
        Err(_) => Err(gone()),
    }
}
