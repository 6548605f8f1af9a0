//! Listeners: the Unix socket for plugins and `towline`, TCP ports for health and metrics.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Binds the Unix socket at `path` with mode 0600; what a dead daemon left there is replaced.
///
/// # Errors
/// When another process answers on it, when something else lies there, or when it cannot be made.
pub fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other(
                "there is a file that is no socket; remove it or name another path",
            ));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::Error::other(
                "another towlined answers on it; stop that one or name another path",
            ));
        }
        Ok(_) => fs::remove_file(path)?,
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Binds a TCP port.
///
/// # Errors
/// When the address is taken or is not this host's.
pub async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` on the Unix socket until `stop`.
pub async fn serve_socket(listener: UnixListener, router: Router, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        result = axum::serve(listener, router).into_future() => report("socket", result),
    }
}

/// Serves `router` on a TCP port until `stop`.
pub async fn serve_tcp(listener: TcpListener, router: Router, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        result = axum::serve(listener, router).into_future() => report("port", result),
    }
}

fn report(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(listener = what, %error, "the listener ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/towlined.sock");
        let first = bind_socket(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let parent = path.parent().unwrap();
        assert_eq!(
            fs::metadata(parent).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let taken = bind_socket(&path).unwrap_err().to_string();
        assert_eq!(
            taken,
            "another towlined answers on it; stop that one or name another path"
        );
        drop(first);
        bind_socket(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("towlined.sock");
        fs::write(&path, "precious").unwrap();
        assert!(
            bind_socket(&path)
                .unwrap_err()
                .to_string()
                .starts_with("there is a file")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
