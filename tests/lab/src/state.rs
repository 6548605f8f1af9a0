//! What a running lab records about itself, so that later commands find it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, NodeId};
use crate::overlay::Overlay;
use crate::process::Process;

/// The recorded facts, in `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The nodes, in order.
    pub nodes: Vec<NodeId>,
    /// MTU of the underlay and of each node's eth0, in bytes.
    pub mtu: u16,
    /// The overlay network.
    pub overlay: Overlay,
    /// The cluster's cgroup folder.
    pub cgroup: PathBuf,
    /// The built tree that is being run.
    pub out: PathBuf,
    /// Daemons by `owner/process`, such as `node1/towlined`.
    pub processes: BTreeMap<String, Process>,
}

impl State {
    /// Reads the state of the cluster at `layout`.
    ///
    /// # Errors
    /// When it is not up, or the file is damaged.
    pub fn load(layout: &Layout) -> Result<Self> {
        let path = layout.state_file();
        let text = fs::read(&path).with_context(|| {
            format!(
                "lab {name} is not up: `lab up --name {name}`",
                name = layout.name()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Writes it, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.state_file();
        let fresh = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).context("encode the lab's state")?;
        fs::write(&fresh, text).with_context(|| format!("write {}", fresh.display()))?;
        fs::rename(&fresh, &path).with_context(|| format!("replace {}", path.display()))
    }
}
