//! `towlined install-cni`: puts plugins and CNI configuration where the container runtime looks.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

/// What to install, and where.
#[derive(Args, Clone, Debug)]
pub struct Install {
    /// Folder with the plugins
    #[arg(long, value_name = "DIR")]
    plugins: PathBuf,
    /// Folder in which the container runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// The CNI configuration; it is installed after the plugins
    #[arg(long, value_name = "FILE")]
    conflist: Option<PathBuf>,
    /// Folder in which the container runtime looks for configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
}

/// Installs; each file is there whole or not at all, and a runtime that is executing an old plugin
/// keeps it.
///
/// # Errors
/// Names the file that could not be read or written.
pub fn install(what: &Install) -> anyhow::Result<Vec<PathBuf>> {
    let mut installed = Vec::new();
    for plugin in plugins(&what.plugins)? {
        installed.push(copy(&plugin, &what.bin_dir, 0o755)?);
    }
    if let Some(conflist) = &what.conflist {
        installed.push(copy(conflist, &what.conf_dir, 0o644)?);
    }
    Ok(installed)
}

/// Configurations that the container runtime takes before the installed one: it uses the first by
/// name.
///
/// # Errors
/// Names the folder that cannot be read.
pub fn preceding(what: &Install) -> anyhow::Result<Vec<PathBuf>> {
    let Some(installed) = what.conflist.as_deref().and_then(Path::file_name) else {
        return Ok(Vec::new());
    };
    let shown = || what.conf_dir.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir(&what.conf_dir).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        let kinds = ["conflist", "conf", "json"];
        let is_one = path
            .extension()
            .is_some_and(|kind| kinds.iter().any(|one| kind == *one));
        if is_one && path.file_name() < Some(installed) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn plugins(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = || format!("--plugins {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        let metadata = fs::metadata(&path).with_context(|| path.display().to_string())?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!(
            "--plugins {}: there is no executable file in it",
            folder.display()
        );
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, folder: &Path, mode: u32) -> anyhow::Result<PathBuf> {
    let name = from
        .file_name()
        .with_context(|| format!("{}: is no file", from.display()))?;
    let to = folder.join(name);
    // A runtime takes every name with a configuration's ending for one.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".draft");
    let draft = folder.join(hidden);
    let content = fs::read(from).with_context(|| from.display().to_string())?;
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&draft)?;
        file.write_all(&content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&draft, &to)
    };
    write().with_context(|| to.display().to_string())?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn executable(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn plugins_and_configuration_are_installed_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("plugins")).unwrap();
        executable(&at("plugins/ptp"), "new");
        executable(&at("plugins/towline"), "new");
        fs::write(at("plugins/README.md"), "no plugin").unwrap();
        fs::write(at("10-towline.conflist"), "{}").unwrap();
        fs::create_dir(at("bin")).unwrap();
        executable(&at("bin/ptp"), "old");
        executable(&at("bin/other"), "somebody else's");
        let what = Install {
            plugins: at("plugins"),
            bin_dir: at("bin"),
            conflist: Some(at("10-towline.conflist")),
            conf_dir: at("etc/cni/net.d"),
        };
        let installed = install(&what).unwrap();
        let wanted = [
            "bin/ptp",
            "bin/towline",
            "etc/cni/net.d/10-towline.conflist",
        ]
        .map(at);
        assert_eq!(installed, wanted);
        assert_eq!(fs::read_to_string(at("bin/ptp")).unwrap(), "new");
        assert_eq!(
            fs::metadata(at("bin/towline"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o755
        );
        assert_eq!(
            fs::read_to_string(at("bin/other")).unwrap(),
            "somebody else's"
        );
        assert_eq!(fs::read_dir(at("bin")).unwrap().count(), 3);
    }

    #[test]
    fn a_configuration_that_the_runtime_takes_instead_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for other in [
            "10-flannel.conflist",
            "05-net.conf",
            "00-README",
            "99-loopback.conf",
        ] {
            fs::write(at(other), "{}").unwrap();
        }
        let mut what = Install {
            plugins: at("plugins"),
            bin_dir: at("bin"),
            conflist: Some("/etc/towline/10-towline.conflist".into()),
            conf_dir: folder.path().to_owned(),
        };
        let first = [at("05-net.conf"), at("10-flannel.conflist")];
        assert_eq!(preceding(&what).unwrap(), first);
        what.conflist = None;
        assert_eq!(preceding(&what).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn an_empty_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let what = Install {
            plugins: folder.path().to_owned(),
            bin_dir: folder.path().join("bin"),
            conflist: None,
            conf_dir: folder.path().join("conf"),
        };
        let error = install(&what).unwrap_err().to_string();
        assert!(
            error.ends_with("there is no executable file in it"),
            "{error}"
        );
        assert!(!folder.path().join("bin").exists());
    }
}
