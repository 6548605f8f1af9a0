//! The other side of the protocol: running a network's plugins as a container runtime does
//! (specification, sections 3 and 4; libcni's behaviour and files).

mod cache;
mod list;
mod load;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::delegate::{execute, find, understand};
use crate::env::Env;
use crate::error::Error;
use crate::plugin::Attachment;
use crate::request::Command;
use crate::result::AddResult;
use crate::run::Done;
use crate::version::Version;

pub use cache::{Cache, Cached};
pub use list::{NetworkList, plugin_config};
pub use load::load;

/// An interface of a container, with what the runtime says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Container and interface.
    pub attachment: Attachment,
    /// Path of the container's network namespace.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: Args,
    /// Arguments by capability, such as `portMappings`; plugins get those they declare.
    pub capabilities: Map<String, Value>,
}

/// Where plugins are, and where results are kept from ADD to DEL.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// `CNI_PATH`: folders, separated by `:`.
    pub path: String,
    /// Results of ADDs.
    pub cache: Cache,
}

// === impl Runtime ===

impl Runtime {
    /// ADD through the whole list; the result is in the list's version, and kept.
    ///
    /// When a plugin fails, those before it are undone, and so is the failed one, unless it is the
    /// first: the interface may be somebody else's then.
    ///
    /// # Errors
    /// The failing plugin's, with its name.
    pub fn add(&self, list: &NetworkList, target: &Target) -> Result<Value, Error> {
        let mut result = None;
        for (at, plugin) in list.plugins.iter().enumerate() {
            let added = self.run(Command::Add, list, plugin, Some(target), result.as_ref());
            let document = added.and_then(|done| match done {
                Done::Result(result, _) => result.encode(list.version),
                Done::Nothing => Err(Error::decode("the plugin returned no result")),
            });
            match document {
                Ok(document) => result = Some(document),
                Err(error) => {
                    let made = if at == 0 { 0 } else { at + 1 };
                    return Err(self.undo(list, made, target, result.as_ref(), error));
                }
            }
        }
        let result = result.unwrap_or_default();
        match self.cache.write(list, target, &result) {
            Ok(()) => Ok(result),
            Err(error) => {
                let all = list.plugins.len();
                Err(self.undo(list, all, target, Some(&result), error))
            }
        }
    }

    /// CHECK through the whole list with the result that was kept.
    ///
    /// # Errors
    /// Code 1 below version 0.4.0, 3 when no result was kept, or the failing plugin's error.
    pub fn check(&self, list: &NetworkList, target: &Target) -> Result<(), Error> {
        if list.version < Version::V040 {
            let msg = format!("CHECK needs cniVersion 0.4.0, not {}", list.version);
            return Err(Error::version(msg));
        }
        if list.disable_check {
            return Ok(());
        }
        let cached = self.cache.read(&list.name, &target.attachment)?;
        let previous = cached.as_ref().and_then(|cached| cached.result.as_ref());
        let Some(previous) = previous else {
            let Attachment {
                container_id,
                ifname,
            } = &target.attachment;
            let (name, file) = (&list.name, self.cache.file(&list.name, &target.attachment));
            return Err(Error::unknown_container(format!(
                "network {name} has no result of container {container_id}, interface {ifname}, in {}",
                file.display()
            )));
        };
        let previous = converted(previous, list.version)?;
        let target = completed(target, cached.as_ref());
        list.plugins.iter().try_for_each(|plugin| {
            let checked = self.run(Command::Check, list, plugin, Some(&target), Some(&previous));
            checked.map(drop)
        })
    }

    /// DEL through the list, last plugin first. A kept result that is unreadable counts as none.
    ///
    /// # Errors
    /// The failing plugin's; those before it in the list are not called, as the specification says.
    pub fn del(&self, list: &NetworkList, target: &Target) -> Result<(), Error> {
        let cached = self.cache.read(&list.name, &target.attachment);
        let cached = cached.ok().flatten();
        let result = cached.as_ref().and_then(|cached| cached.result.as_ref());
        let previous = result
            .filter(|_| list.version >= Version::V040)
            .and_then(|result| converted(result, list.version).ok());
        let target = completed(target, cached.as_ref());
        for plugin in list.plugins.iter().rev() {
            self.run(Command::Del, list, plugin, Some(&target), previous.as_ref())?;
        }
        self.cache.remove(&list.name, &target.attachment)
    }

    /// DEL of what was kept of this network and is not in `valid`, then GC of every plugin. Without
    /// `valid` nothing is known to be stale, and the plugins are told no list.
    ///
    /// # Errors
    /// The first failure, after everything else was tried.
    pub fn gc(&self, list: &NetworkList, valid: Option<&[Attachment]>) -> Result<(), Error> {
        if list.disable_gc {
            return Ok(());
        }
        let mut outcome = Ok(());
        if let Some(valid) = valid {
            let valid: BTreeSet<&Attachment> = valid.iter().collect();
            for stale in self.cache.list(&list.name)? {
                if !valid.contains(&stale.attachment()) {
                    outcome = outcome.and(self.del(list, &stale.target()));
                }
            }
        }
        if list.version < Version::V110 {
            return outcome;
        }
        for plugin in &list.plugins {
            let mut plugin = plugin.clone();
            if let Some(valid) = valid {
                // The second is what the specification called it at first.
                for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    plugin.insert(key.to_owned(), json!(valid));
                }
            }
            let collected = self.run(Command::Gc, list, &plugin, None, None);
            outcome = outcome.and(collected.map(drop));
        }
        outcome
    }

    /// STATUS of every plugin. Below version 1.1.0 there is none to ask.
    ///
    /// # Errors
    /// The first plugin's that cannot serve an ADD.
    pub fn status(&self, list: &NetworkList) -> Result<(), Error> {
        if list.version < Version::V110 {
            return Ok(());
        }
        list.plugins.iter().try_for_each(|plugin| {
            self.run(Command::Status, list, plugin, None, None)
                .map(drop)
        })
    }

    fn run(
        &self,
        command: Command,
        list: &NetworkList,
        plugin: &Map<String, Value>,
        target: Option<&Target>,
        previous: Option<&Value>,
    ) -> Result<Done, Error> {
        let kind = plugin.get("type").and_then(Value::as_str);
        let kind = kind.unwrap_or_default();
        let none = Map::new();
        let capabilities = target.map_or(&none, |target| &target.capabilities);
        let config = plugin_config(&list.name, list.version, plugin, capabilities, previous);
        let env = self.environment(command, target);
        let folders: Vec<PathBuf> = std::env::split_paths(&self.path).collect();
        let done = find(kind, &folders)
            .and_then(|file| execute(&file, &env, json!(config).to_string().as_bytes()))
            .and_then(|output| understand(kind, command, list.version, &output));
        done.map_err(|mut error| {
            error.msg = format!("plugin {kind}, {}: {}", command.as_str(), error.msg);
            error
        })
    }

    fn environment(&self, command: Command, target: Option<&Target>) -> Env {
        let (mut container_id, mut ifname, mut netns, mut args) = ("", "", "", String::new());
        if let Some(target) = target {
            (container_id, ifname) = (&target.attachment.container_id, &target.attachment.ifname);
            (netns, args) = (&target.netns, target.args.to_string());
        }
        Env::of_process()
            .with("CNI_COMMAND", command.as_str())
            .with("CNI_CONTAINERID", container_id)
            .with("CNI_IFNAME", ifname)
            .with("CNI_NETNS", netns)
            .with("CNI_ARGS", &args)
            .with("CNI_PATH", &self.path)
    }

    /// DEL of the first `count` plugins; what fails is added to `error`.
    fn undo(
        &self,
        list: &NetworkList,
        count: usize,
        target: &Target,
        previous: Option<&Value>,
        mut error: Error,
    ) -> Error {
        let previous = previous.filter(|_| list.version >= Version::V040);
        for plugin in list.plugins.iter().take(count).rev() {
            if let Err(second) = self.run(Command::Del, list, plugin, Some(target), previous) {
                let separator = if error.details.is_empty() { "" } else { "; " };
                error.details += &format!("{separator}then, undoing: {second}");
            }
        }
        error
    }
}

/// A kept result in the version that the list has now.
fn converted(result: &Value, version: Version) -> Result<Value, Error> {
    let (result, _) = AddResult::decode(result, version)?;
    result.encode(version)
}

/// The target, with the arguments of its ADD where none are given: what DEL frees can depend on
/// them.
fn completed(target: &Target, cached: Option<&Cached>) -> Target {
    let mut target = target.clone();
    if let Some(cached) = cached {
        if target.capabilities.is_empty() {
            target.capabilities.clone_from(&cached.capabilities);
        }
        if target.args == Args::default() {
            target.args = cached.args();
        }
    }
    target
}
