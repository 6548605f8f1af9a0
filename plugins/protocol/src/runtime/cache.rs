//! Results kept from ADD to DEL, in libcni's files: `<folder>/results/<network>-<container>-<interface>`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::error::Error;
use crate::plugin::Attachment;
use crate::runtime::{NetworkList, Target};

/// What libcni calls the form of its files.
const KIND: &str = "cniCacheV1";

/// The folder of kept results.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// A file of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cached {
    kind: String,
    container_id: String,
    /// The list as it was at ADD, in Base64.
    #[serde(default)]
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<[String; 2]>,
    /// Arguments by capability.
    #[serde(
        rename = "capabilityArgs",
        default,
        skip_serializing_if = "Map::is_empty"
    )]
    pub(super) capabilities: Map<String, Value>,
    /// The last plugin's result, in the version of the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Value>,
}

// === impl Cache ===

impl Cache {
    /// Keeps results under `folder`, which libcni has at `/var/lib/cni`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("results"),
        }
    }

    /// The file of an attachment.
    #[must_use]
    pub fn file(&self, network: &str, attachment: &Attachment) -> PathBuf {
        let Attachment {
            container_id,
            ifname,
        } = attachment;
        self.folder
            .join(format!("{network}-{container_id}-{ifname}"))
    }

    /// What was kept of an attachment.
    ///
    /// # Errors
    /// Code 4 for names that are none, 6 for what is no kept result.
    pub fn read(&self, network: &str, attachment: &Attachment) -> Result<Option<Cached>, Error> {
        attachment.check()?;
        let file = self.file(network, attachment);
        // As in libcni: what cannot be read was not kept.
        let Ok(bytes) = fs::read(&file) else {
            return Ok(None);
        };
        let bad = |error| {
            let msg = format!("{} is no kept result", file.display());
            Error::decode(msg).details(error)
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(bad)?;
        if document["kind"] == KIND {
            return serde_json::from_value(document).map(Some).map_err(bad);
        }
        // Before version 0.8, libcni kept the bare result.
        Ok(Some(Cached {
            result: Some(document),
            ..Cached::default()
        }))
    }

    /// Everything that was kept of a network, sorted; files of another form are passed over.
    ///
    /// # Errors
    /// Code 5 when the folder is there and cannot be read.
    pub fn list(&self, network: &str) -> Result<Vec<Cached>, Error> {
        let failed = |error| {
            let msg = format!("cannot read {}", self.folder.display());
            Error::io(msg).details(error)
        };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let bytes = fs::read(entry.map_err(failed)?.path()).unwrap_or_default();
            let cached = serde_json::from_slice::<Cached>(&bytes).ok();
            all.extend(cached.filter(|one| {
                one.kind == KIND && one.network_name == network && one.attachment().check().is_ok()
            }));
        }
        all.sort_by_key(Cached::attachment);
        Ok(all)
    }

    pub(super) fn write(
        &self,
        list: &NetworkList,
        target: &Target,
        result: &Value,
    ) -> Result<(), Error> {
        let pair = |(key, value): (&str, &str)| [key.to_owned(), value.to_owned()];
        let cached = Cached {
            kind: KIND.to_owned(),
            container_id: target.attachment.container_id.clone(),
            config: STANDARD.encode(&list.source),
            if_name: target.attachment.ifname.clone(),
            network_name: list.name.clone(),
            netns: target.netns.clone(),
            cni_args: target.args.pairs().map(pair).collect(),
            capabilities: target.capabilities.clone(),
            result: Some(result.clone()),
        };
        let file = self.file(&list.name, &target.attachment);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let fresh = self.folder.join(format!(".{name}"));
        let write = || {
            let mut folders = DirBuilder::new();
            folders.recursive(true).mode(0o700).create(&self.folder)?;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let bytes = json!(cached).to_string();
            options.open(&fresh)?.write_all(bytes.as_bytes())?;
            fs::rename(&fresh, &file)
        };
        write().map_err(|error: std::io::Error| {
            Error::io(format!("cannot keep the result in {}", file.display())).details(error)
        })
    }

    pub(super) fn remove(&self, network: &str, attachment: &Attachment) -> Result<(), Error> {
        let file = self.file(network, attachment);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let msg = format!("cannot remove {}", file.display());
                Err(Error::io(msg).details(error))
            }
            _ => Ok(()),
        }
    }
}

// === impl Cached ===

impl Cached {
    /// Whose it is.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container_id.clone(),
            ifname: self.if_name.clone(),
        }
    }

    /// The namespace's path at ADD.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.netns
    }

    pub(super) fn args(&self) -> Args {
        self.cni_args
            .iter()
            .map(|[key, value]| (key.clone(), value.clone()))
            .collect()
    }

    pub(super) fn target(&self) -> Target {
        Target {
            attachment: self.attachment(),
            netns: self.netns.clone(),
            args: self.args(),
            capabilities: self.capabilities.clone(),
        }
    }
}
