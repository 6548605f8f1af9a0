//! The private key of this node's WireGuard devices, which outlives the daemon.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netstate::wireguard::Key;

/// Its name in the state folder.
const NAME: &str = "wireguard.key";
/// Where flannel keeps its own.
pub(super) const FLANNELS: &str = "/run/flannel/wgkey";

/// The key in `folder`; else flannel's at `flannels`, so that other nodes know it already; else a
/// new one. Either is then kept in `folder`, for this user's eyes only.
///
/// # Errors
/// When the file cannot be read or written, or holds no key.
pub(super) fn load(folder: &Path, flannels: &Path) -> anyhow::Result<Key> {
    let path = folder.join(NAME);
    match fs::read_to_string(&path) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{}: remove it for a new key", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = match fs::read_to_string(flannels).ok().map(|text| text.parse()) {
                Some(Ok(key)) => key,
                _ => new()?,
            };
            keep(&path, &key).with_context(|| format!("write {}", path.display()))?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn new() -> anyhow::Result<Key> {
    let mut random = [0; 32];
    let mut source = fs::File::open("/dev/urandom").context("read /dev/urandom")?;
    source
        .read_exact(&mut random)
        .context("read /dev/urandom")?;
    Ok(Key::private(random))
}

fn keep(path: &Path, key: &Key) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let draft: PathBuf = path.with_extension("key.draft");
    // One that an interrupted start left could have any mode.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let none = folder.path().join("none");
        let key = load(&state, &none).unwrap();
        assert_eq!(load(&state, &none).unwrap(), key);
        let path = state.join(NAME);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&state)), (0o600, 0o700));
        assert_ne!(load(&folder.path().join("other"), &none).unwrap(), key);
        fs::write(&path, "no key").unwrap();
        let error = format!("{:#}", load(&state, &none).unwrap_err());
        assert!(
            error.contains("wireguard.key: remove it for a new key"),
            "{error}"
        );
    }

    #[test]
    fn flannels_key_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let flannels = folder.path().join("wgkey");
        let theirs = Key::private([5; 32]);
        fs::write(&flannels, theirs.to_string()).unwrap();
        assert_eq!(load(folder.path(), &flannels).unwrap(), theirs);
        fs::remove_file(&flannels).unwrap();
        assert_eq!(load(folder.path(), &flannels).unwrap(), theirs);
    }
}
