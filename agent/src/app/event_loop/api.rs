//! The API server as a source, if this build has its client.

#[cfg(feature = "kubernetes")]
pub(super) use with_client::Api;
#[cfg(not(feature = "kubernetes"))]
pub(super) use without_client::Api;

#[cfg(feature = "kubernetes")]
mod with_client {
    use std::{io, path::PathBuf};

    use tokio::sync::mpsc;

    use crate::{
        app::{
            AppError,
            object_store::{self, FileStore, Unstored},
        },
        config::Config,
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
        file: PathBuf,
        unstored: Unstored,
    }

    impl Api {
        #[expect(clippy::unnecessary_wraps, reason = "a build without the client fails")]
        pub(in crate::app::event_loop) fn new(config: &Config) -> Result<Option<Self>, AppError> {
            let Some(kubernetes) = &config.kubernetes else {
                return Ok(None);
            };
            let kubeconfig = kubernetes.kubeconfig.clone();
            Ok(Some(Self {
                connection: kubeconfig.map_or(Connection::ServiceAccount, Connection::Kubeconfig),
                node: kubernetes.node_name.clone(),
                pods: kubernetes.pod_ranges.clone(),
                file: object_store::file(&config.state_dir),
                unstored: Unstored::default(),
            }))
        }

        /// Why its objects are not stored.
        pub(in crate::app::event_loop) fn unstored(&self) -> Unstored {
            self.unstored.clone()
        }

        /// Starts to watch it.
        pub(in crate::app::event_loop) fn watch(self) -> io::Result<Box<dyn ObjectSource>> {
            let node = self.node.ok_or(io::ErrorKind::InvalidInput)?;
            let interfaces = PodInterfaces::start()?;
            let (sender, updates) = mpsc::channel(CAPACITY);
            watch::start(&self.connection, &node, sender)?;
            let store = Box::new(FileStore::start(self.file, node, self.unstored)?);
            let source = KubernetesSource::new(updates, interfaces, self.pods, store);
            Ok(Box::new(source))
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
mod without_client {
    use std::{convert::Infallible, io};

    use crate::{
        app::{AppError, object_store::Unstored},
        config::Config,
        source::{ObjectSource, SourceError},
    };

    /// There is none.
    pub(in crate::app::event_loop) struct Api(Infallible);

    impl Api {
        pub(in crate::app::event_loop) fn new(config: &Config) -> Result<Option<Self>, AppError> {
            if config.kubernetes.is_none() {
                return Ok(None);
            }
            let message = "[kubernetes] is given, and this build has no client for it: expected a build with \
                           `cargo xtask build --kubernetes`";
            let error = SourceError::whole_file("ringfence.toml", message);
            Err(AppError::Invalid(vec![error]))
        }

        pub(in crate::app::event_loop) fn unstored(&self) -> Unstored {
            match self.0 {}
        }

        pub(in crate::app::event_loop) fn watch(self) -> io::Result<Box<dyn ObjectSource>> {
            match self.0 {}
        }
    }
}
