//! A listening unix socket, bound again where its file is deleted: nobody could connect any more, and
//! the listener itself would never hear of it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{UnixListener, UnixStream};

/// How often the file is looked for while nobody connects.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A socket that listens at a path.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listening: ArcSwap<Listening>,
    /// Set while it cannot be bound again.
    is_lost: AtomicBool,
}

#[derive(Debug)]
struct Listening {
    listener: UnixListener,
    /// Device and inode of its file.
    file: Option<(u64, u64)>,
}

impl Socket {
    /// Binds that path; a socket file that nobody answers on is a dead process's and is replaced.
    pub fn bind(path: &Path) -> io::Result<Socket> {
        Ok(Socket {
            path: path.to_owned(),
            listening: ArcSwap::from_pointee(listen(path)?),
            is_lost: AtomicBool::new(false),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let listening = self.listening.load_full();
            match tokio::time::timeout(LOOK_EVERY, listening.listener.accept()).await {
                Ok(accepted) => return Ok(accepted?.0),
                Err(_) => self.look(),
            }
        }
    }

    fn look(&self) {
        if file(&self.path) == self.listening.load().file {
            return;
        }
        let path = self.path.display();
        match listen(&self.path) {
            Ok(listening) => {
                self.listening.store(Arc::new(listening));
                self.is_lost.store(false, Ordering::Relaxed);
                tracing::warn!(%path, "the socket's file was moved or deleted, and is bound again");
            }
            Err(error) => {
                if !self.is_lost.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        %error,
                        %path,
                        "the socket's file was moved or deleted, and cannot be bound again yet; \
                         nobody can connect"
                    );
                }
            }
        }
    }
}

impl Drop for Socket {
    /// A socket file that nobody listens on would look like a running aggregator; another's stays.
    fn drop(&mut self) {
        if file(&self.path) == self.listening.load().file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The folder decides who may connect: only the proxy and the aggregator mount it. Within it the
/// proxy runs under another user id, so the socket itself is open.
fn listen(path: &Path) -> io::Result<Listening> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(Listening {
        listener,
        file: file(path),
    })
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_whose_file_is_deleted_is_bound_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ingest.sock");
        let socket = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let connect = async {
            while UnixStream::connect(&path).await.is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let both = async { tokio::join!(socket.accept(), connect).0.is_ok() };
        let is_accepted = tokio::time::timeout(60 * LOOK_EVERY, both).await;
        assert!(is_accepted.is_ok_and(|is_ok| is_ok));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);

        // Another process's by now: it is not this one's to delete.
        fs::remove_file(&path).unwrap();
        let another = Socket::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(another);
        assert!(!path.exists());
    }
}
