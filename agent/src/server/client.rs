//! The client of the control API, over its Unix socket.
//!
//! Invariants: one connection per request; plain requests have a deadline, streams have none; the
//! length of a line in a stream is bounded. Errors name a remedy where there is one. It prints
//! nothing.

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

/// The deadline of a plain request.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest line of a stream.
const MAX_LINE: usize = 1 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be connected to.
    #[error("cannot connect to the agent on {}{}", path.display(), hint(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The agent returned an error.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The agent's error text.
        error: String,
    },
    /// The connection failed.
    #[error("the connection to the agent failed")]
    Http(#[from] hyper::Error),
    /// The request is invalid.
    #[error("invalid request")]
    Request(#[from] hyper::http::Error),
    /// The response does not have the expected form.
    #[error("cannot parse the agent's response (does the agent have another version?)")]
    Json(#[from] serde_json::Error),
    /// The agent did not respond in time.
    #[error("the agent did not respond within {} s", DEADLINE.as_secs())]
    Timeout,
    /// A line of a stream exceeds the limit.
    #[error("a line of the agent's response is longer than {MAX_LINE} bytes")]
    LongLine,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run this as root)",
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            " (is it running? see --socket)"
        }
        _ => "",
    }
}

/// A client of the agent on a control socket.
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

    /// Sends a GET request.
    ///
    /// # Errors
    /// When the agent cannot be reached, returns an error, or the response cannot be parsed.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.exchange(Method::GET, target, Bytes::new()).await
    }

    /// Sends a PUT request.
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

    /// Sends a DELETE request.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.exchange(Method::DELETE, target, Bytes::new()).await
    }

    /// Sends a POST request.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.exchange(Method::POST, target, Bytes::new()).await
    }

    /// Opens a stream of lines.
    ///
    /// # Errors
    /// When the agent cannot be reached or returns an error.
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
        let received = async {
            let response = self.request(method, target, body).await?;
            Ok::<_, ClientError>(response.into_body().collect().await?.to_bytes())
        };
        let bytes = timeout(DEADLINE, received)
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
        // An error that ends the connection also ends the response, which reports it.
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
            |_| format!("the agent responded with {status}"),
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
    /// The next line without its line feed; `None` at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// When the connection fails or a line is too long.
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
