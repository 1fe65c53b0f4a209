//! Metrics and health over HTTP, for Prometheus and for a supervisor such as the kubelet.
//!
//! Invariants: read-only and without secrets, because any process on the node can connect; `livez`
//! succeeds while the runtime works, `readyz` only once policy is in force. On loopback unless
//! configured otherwise; without encryption or authentication.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::http::{self, Limits};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From the start of a connection to the end of its response.
const DEADLINE: Duration = Duration::from_secs(10);

/// The parts of the application that this server uses.
pub trait Health: Send + Sync {
    /// The metrics page, in OpenMetrics text format.
    fn metrics(&self) -> String;

    /// Whether policy is in force.
    ///
    /// # Errors
    /// Why it is not.
    fn ready(&self) -> Result<(), String>;
}

/// A bound listener for metrics and health.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HealthServer {
    /// Binds the listener; port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!("metrics and health are exposed beyond loopback, on {address}");
        }
        Ok(Self { listener, address })
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
            address: self.address,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves requests until `shutdown` completes, for a process that may have so many descriptors.
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn serve(
        self,
        health: Arc<dyn Health>,
        descriptors: u64,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(health);
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let limits = Limits::of_descriptors(descriptors, DEADLINE);
        http::serve(listener, router, limits, shutdown).await;
        Ok(())
    }
}

async fn metrics(State(health): State<Arc<dyn Health>>) -> Response {
    ([(CONTENT_TYPE, OPEN_METRICS)], health.metrics()).into_response()
}

async fn readyz(State(health): State<Arc<dyn Health>>) -> Response {
    match health.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[derive(Default)]
    struct Fake(AtomicBool);

    impl Health for Fake {
        fn metrics(&self) -> String {
            "ringfence_revision 1\n# EOF\n".into()
        }

        fn ready(&self) -> Result<(), String> {
            if self.0.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("no policy applied yet".into())
            }
        }
    }

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn health_and_metrics_are_served_on_loopback() {
        let server = HealthServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address();
        let fake = Arc::new(Fake::default());
        let health = Arc::<Fake>::clone(&fake);
        let task = tokio::spawn(server.serve(health, 1024, std::future::pending()));

        assert!(fetch(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let response = fetch(address, "/readyz").await;
        assert!(response.starts_with("HTTP/1.1 503") && response.contains("no policy applied yet"));
        fake.0.store(true, Ordering::Relaxed);
        assert!(fetch(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let page = fetch(address, "/metrics").await;
        assert!(
            page.contains(OPEN_METRICS) && page.ends_with("# EOF\n"),
            "{page}"
        );
        assert!(fetch(address, "/else").await.starts_with("HTTP/1.1 404"));
        task.abort();
    }
}
