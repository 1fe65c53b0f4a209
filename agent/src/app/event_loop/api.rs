//! The API server as a source, if this build has its client.

#[cfg(feature = "kubernetes")]
pub(super) use with_client::Api;
#[cfg(not(feature = "kubernetes"))]
pub(super) use without_client::Api;

#[cfg(feature = "kubernetes")]
mod with_client {
    use std::io;

    use tokio::sync::mpsc;

    use crate::{
        app::AppError,
        config::Kubernetes,
        model::NodeName,
        source::{
            ObjectSource,
            kubernetes_api::{
                CAPACITY, KubernetesSource, PodRanges,
                watch::{self, Connection},
            },
            pod_interfaces::PodInterfaces,
        },
    };

    /// A configured API server.
    pub(in crate::app::event_loop) struct Api {
        connection: Connection,
        node: Option<NodeName>,
        pods: PodRanges,
    }

    impl Api {
        #[expect(clippy::unnecessary_wraps, reason = "a build without the client fails")]
        pub(in crate::app::event_loop) fn new(config: &Kubernetes) -> Result<Self, AppError> {
            let kubeconfig = config.kubeconfig.clone();
            Ok(Self {
                connection: kubeconfig.map_or(Connection::ServiceAccount, Connection::Kubeconfig),
                node: config.node_name.clone(),
                pods: config.pod_ranges.clone(),
            })
        }

        /// Starts to watch it.
        pub(in crate::app::event_loop) fn watch(self) -> io::Result<Box<dyn ObjectSource>> {
            let node = self.node.ok_or(io::ErrorKind::InvalidInput)?;
            let interfaces = PodInterfaces::start()?;
            let (sender, updates) = mpsc::channel(CAPACITY);
            watch::start(&self.connection, &node, sender)?;
            Ok(Box::new(KubernetesSource::new(
                updates, interfaces, self.pods,
            )))
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
mod without_client {
    use std::{convert::Infallible, io};

    use crate::{
        app::AppError,
        config::Kubernetes,
        source::{ObjectSource, SourceError},
    };

    /// There is none.
    pub(in crate::app::event_loop) struct Api(Infallible);

    impl Api {
        pub(in crate::app::event_loop) fn new(_: &Kubernetes) -> Result<Self, AppError> {
            let message = "[kubernetes] is given, and this build has no client for it: expected a build with \
                           `cargo xtask build --kubernetes`";
            let error = SourceError::whole_file("ringfence.toml", message);
            Err(AppError::Invalid(vec![error]))
        }

        pub(in crate::app::event_loop) fn watch(self) -> io::Result<Box<dyn ObjectSource>> {
            match self.0 {}
        }
    }
}
