//! `GET /v1/flows`: recent flow records, and new ones if the request has `follow=true`.
//!
//! Invariants: JSON lines, as in the flow log; a gap is reported on a separate line; the history
//! and the feed bound the memory per client, however slowly it reads. Records are filtered, never
//! sampled.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::api::ApiError;
use super::control::Control;
use super::http::OpenEnded;
use crate::model::{NamespaceName, WorkloadId};
use crate::observe::{Filter, FlowRecord, Followed, Follower, hubble};

/// Lines are sent in chunks of about this many bytes.
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
    fn filter(&self) -> Result<Filter, ApiError> {
        let checked = |name: &String| NamespaceName::new(name).map(|_| name.clone());
        let namespace = self.namespace.as_ref().map(checked);
        let checked = |name: &String| name.parse::<WorkloadId>().map(|_| name.clone());
        let workload = self.workload.as_ref().map(checked);
        let verdict = self.verdict.as_deref().map(str::parse);
        Ok(Filter {
            namespace: namespace.transpose().map_err(ApiError::bad_request)?,
            workload: workload.transpose().map_err(ApiError::bad_request)?,
            verdict: verdict.transpose().map_err(ApiError::bad_request)?,
            since: self.since,
        })
    }
}

pub(super) async fn flows(
    State(control): State<Control>,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
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
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    // A reader may pause for as long as it likes, also in the records of the past.
    Ok((kind, Extension(OpenEnded), body).into_response())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        History,
        flow::tests::{event, record},
    };

    #[tokio::test]
    async fn a_slow_client_gets_the_number_of_lost_records_and_all_others() {
        const SENT: u64 = 50_000;
        let history = History::new(0);
        let (past, follower) = history.follow(Filter::default(), None);
        let mut lines = Lines {
            past: past.into(),
            follower: Some(follower),
            node: "n".into(),
        };
        let sample = Arc::new(record(&event()));
        for _ in 0..SENT {
            history.push(std::slice::from_ref(&sample));
        }
        let first = lines.next_chunk().await.unwrap();
        let first: serde_json::Value = serde_json::from_slice(&first).unwrap();
        let lost = history.lost();
        assert_eq!(
            first["lost_events"]["num_events_lost"],
            lost.to_string().as_str()
        );
        drop(history);
        let mut received = 0;
        while let Some(chunk) = lines.next_chunk().await {
            received += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        assert!(lost > 0 && received > 0);
        assert_eq!(received + lost, SENT);
    }
}
