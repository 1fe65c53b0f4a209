//! The Unix socket of the control API.
//!
//! Invariants: the socket has mode 0600 from the moment its path exists; `accept` only returns
//! connections of root and of the agent's own user; a socket with a listener is never replaced, nor
//! is a file that is not a socket; on drop the file is removed if it is still ours. `api` has the
//! protocol.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens on it.
    #[error(
        "another process listens on {}: stop it first", .0.display()
    )]
    InUse(PathBuf),
    /// The path is another kind of file.
    #[error("{} is not a socket: remove it, or use another run-dir", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A bound control socket.
#[derive(Debug)]
pub struct ControlListener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ControlListener {
    /// Binds the socket; replaces the socket of an agent that no longer runs.
    ///
    /// # Errors
    /// When another agent listens on it, or a file operation fails.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .map_err(failed)?;
        }
        check_free(path)?;
        // Set the permissions before the final name: the path never refers to an open socket.
        let staging = staging_path(path);
        remove_if_there(&staging).map_err(failed)?;
        let socket = UnixListener::bind(&staging).map_err(failed)?;
        let named = fs::set_permissions(&staging, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&staging, path))
            .and_then(|()| fs::symlink_metadata(path));
        match named {
            Ok(metadata) => Ok(Self {
                socket,
                path: path.to_owned(),
                inode: metadata.ino(),
            }),
            Err(error) => {
                // The first error is the one to report.
                let _ = fs::remove_file(&staging);
                Err(failed(error))
            }
        }
    }

    /// The path that it listens on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Listener for ControlListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if may_control(peer.uid()) => return (stream, address),
                    Ok(peer) => {
                        let (uid, pid) = (peer.uid(), peer.pid().unwrap_or_default());
                        tracing::warn!(uid, pid, "control connection refused: wrong user");
                    }
                    Err(error) => {
                        tracing::warn!("control connection without peer credentials: {error}");
                    }
                },
                Err(error) => {
                    tracing::warn!("cannot accept a control connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

fn may_control(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

fn check_free(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(()),
            // The backlog is full, so the socket has a listener.
            io::ErrorKind::WouldBlock => Err(ListenError::InUse(path.to_owned())),
            _ => Err(failed(error)),
        },
    }
}

fn staging_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_has_mode_0600_and_is_removed_on_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/ringfence.sock");
        let listener = ControlListener::bind(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 1);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_running_agent_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = ControlListener::bind(&path).unwrap();
        let error = ControlListener::bind(&path).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        assert!(path.exists());
        drop(first);
        assert!(ControlListener::bind(&path).is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = ControlListener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(listener);

        fs::write(&path, "precious").unwrap();
        let error = ControlListener::bind(&path).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn drop_does_not_remove_the_socket_of_another_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = ControlListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = ControlListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn only_root_and_the_own_user_may_control() {
        assert!(may_control(0));
        assert!(may_control(nix::unistd::geteuid().as_raw()));
        assert!(!may_control(u32::MAX - 1));
    }
}
