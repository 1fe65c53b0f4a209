//! The stream of flow records: first the past, then, if asked, everything that follows.
//!
//! Invariants: JSON lines, as in the flow log; a gap is a line of its own; memory per client is
//! bounded by the history and the feed, however slowly it reads. It filters, it never samples.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::api::Refusal;
use super::control::Control;
use crate::model::{NamespaceName, WorkloadId};
use crate::observe::{Filter, FlowRecord, Followed, Follower, hubble};

/// Lines are sent in chunks of about so many bytes.
const CHUNK: usize = 32 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FlowQuery {
    last: Option<usize>,
    since: Option<Timestamp>,
    namespace: Option<String>,
    workload: Option<String>,
    verdict: Option<String>,
    follow: bool,
}

impl FlowQuery {
    fn filter(&self) -> Result<Filter, Refusal> {
        let checked = |name: &String| NamespaceName::new(name).map(|_| name.clone());
        let namespace = self.namespace.as_ref().map(checked);
        let checked = |name: &String| name.parse::<WorkloadId>().map(|_| name.clone());
        let workload = self.workload.as_ref().map(checked);
        let verdict = self.verdict.as_deref().map(str::parse);
        Ok(Filter {
            namespace: namespace.transpose().map_err(Refusal::bad_request)?,
            workload: workload.transpose().map_err(Refusal::bad_request)?,
            verdict: verdict.transpose().map_err(Refusal::bad_request)?,
            since: self.since,
        })
    }
}

pub(super) async fn flows(
    State(control): State<Control>,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let filter = query.filter()?;
    let (past, follower) = if query.follow {
        let (past, follower) = control.history.follow(filter, query.last);
        (past, Some(follower))
    } else {
        (control.history.recent(&filter, query.last), None)
    };
    let lines = Lines {
        past: past.into(),
        follower,
        node: control.node,
    };
    let body = Body::from_stream(stream::unfold(lines, |mut lines| async {
        let chunk = lines.next_chunk().await?;
        Some((Ok::<_, Infallible>(chunk), lines))
    }));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Lines {
    past: VecDeque<Arc<FlowRecord>>,
    follower: Option<Follower>,
    node: Arc<str>,
}

impl Lines {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK
            && let Some(record) = self.past.pop_front()
        {
            hubble::write_line(&mut chunk, &record);
        }
        if chunk.is_empty() {
            match self.follower.as_mut()?.next().await? {
                Followed::Flow(record) => hubble::write_line(&mut chunk, &record),
                Followed::Lost(count) => {
                    hubble::write_lost(&mut chunk, count, &self.node, Timestamp::now());
                }
            }
        }
        Some(chunk.into())
    }
}
