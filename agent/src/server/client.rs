//! The client of the control API, over its Unix socket.
//!
//! Invariants: one connection per request; plain requests have a deadline, streams have none; a
//! line of a stream is bounded. Errors say what to do where we know. It prints nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::view::ErrorBody;

/// How long a plain request may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest line of a stream.
const MAX_LINE: usize = 1 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no agent answers on {}{}", path.display(), hint(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent refused.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What the agent said.
        error: String,
    },
    /// The connection broke.
    #[error("the connection to the agent broke")]
    Http(#[from] hyper::Error),
    /// The request cannot be built.
    #[error("this is no request")]
    Request(#[from] hyper::http::Error),
    /// The answer is not what this version expects.
    #[error("the agent's answer cannot be read (is it of another version?)")]
    Json(#[from] serde_json::Error),
    /// The agent did not answer.
    #[error("the agent did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
    /// A line of a stream is longer than any of ours.
    #[error("a line of the agent's answer is longer than {MAX_LINE} bytes")]
    LongLine,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run this as root)",
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (does it run? see --socket)"
        }
        _ => "",
    }
}

/// Talks to the agent behind a socket.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the socket at `path`; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Fetches something.
    ///
    /// # Errors
    /// When the agent cannot be reached, refuses, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.exchange(Method::GET, target, Bytes::new()).await
    }

    /// Replaces something.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.exchange(Method::PUT, target, serde_json::to_vec(body)?.into())
            .await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.exchange(Method::POST, target, Bytes::new()).await
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// When the agent cannot be reached or refuses.
    pub async fn lines(&self, target: &str) -> Result<Lines, ClientError> {
        let opened = self.request(Method::GET, target, Bytes::new());
        let response = timeout(DEADLINE, opened)
            .await
            .map_err(|_| ClientError::Timeout)??;
        Ok(Lines {
            body: response.into_body(),
            buffer: Vec::new(),
            start: 0,
        })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let answer = async {
            let response = self.request(method, target, body).await?;
            Ok::<_, ClientError>(response.into_body().collect().await?.to_bytes())
        };
        let bytes = timeout(DEADLINE, answer)
            .await
            .map_err(|_| ClientError::Timeout)??;
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream =
            UnixStream::connect(&self.path)
                .await
                .map_err(|source| ClientError::Connect {
                    path: self.path.clone(),
                    source,
                })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Whatever ends the connection also ends the answer, which reports it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "ringfence")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        let error = serde_json::from_slice::<ErrorBody>(&bytes).map_or_else(
            |_| format!("the agent answered {status}"),
            |body| body.error,
        );
        Err(ClientError::Refused {
            status: status.as_u16(),
            error,
        })
    }
}

/// A stream of lines.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    /// The next line without its end, `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// When the connection breaks or a line is too long.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(ClientError::LongLine);
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    self.buffer
                        .extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                None => return Ok(None),
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            self.buffer.drain(..self.start);
            self.start = 0;
            return None;
        };
        let line = String::from_utf8_lossy(rest.get(..length)?).into_owned();
        self.start += length + 1;
        Some(line)
    }
}
