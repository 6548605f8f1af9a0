//! Environment and standard input, checked, as one request.
//!
//! The order of checks is the reference's: environment (4), JSON (6), network name (7), command
//! (4), version (1). All missing variables are named in one error.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::args::Args;
use crate::env::Env;
use crate::error::Error;
use crate::plugin::Attachment;
use crate::result::AddResult;
use crate::run::Registry;
use crate::version::Version;

const IFNAME_MAX: usize = 15;
const VARIABLES: &[&str] = &[
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_IFNAME",
    "CNI_NETNS",
    "CNI_ARGS",
    "CNI_PATH",
];

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Check that it is attached.
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Say whether ADD could be served.
    Status,
}

/// A checked request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What to do.
    pub command: Command,
    /// `CNI_CONTAINERID`; empty for GC and STATUS.
    pub container_id: String,
    /// `CNI_IFNAME`; empty for GC and STATUS.
    pub ifname: String,
    /// `CNI_NETNS`, if given.
    pub netns: Option<String>,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// The network's name.
    pub network: String,
    /// The configuration's version.
    pub version: Version,
    /// The configuration.
    pub config: Map<String, Value>,
    /// The configuration as it came, to be passed on.
    pub stdin: &'a [u8],
    /// The result of the plugin before, or of the ADD.
    pub prev_result: Option<AddResult>,
    /// The environment it came with, to be passed on.
    pub env: &'a Env,
    /// The plugins of this program.
    pub registry: Registry<'a>,
}

// === impl Command ===

impl Command {
    /// As written in `CNI_COMMAND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    fn find(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status]
            .into_iter()
            .find(|command| command.as_str() == text)
    }

    /// Variables that must be set, besides `CNI_COMMAND`.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
        }
    }

    const fn since(self) -> Version {
        match self {
            Self::Add | Self::Del => Version::V010,
            Self::Check => Version::V040,
            Self::Gc | Self::Status => Version::V110,
        }
    }
}

// === impl Request ===

impl<'a> Request<'a> {
    /// Checks environment and configuration.
    ///
    /// # Errors
    /// The specification's codes 1, 4, 6 and 7.
    pub fn parse(env: &'a Env, stdin: &'a [u8], registry: Registry<'a>) -> Result<Self, Error> {
        if let Some(name) = env.unreadable(VARIABLES) {
            let msg = format!("{name} is not UTF-8; give plain text");
            return Err(Error::environment(msg));
        }
        let text = env.get("CNI_COMMAND").unwrap_or_default();
        let command = Command::find(text);
        if let Some(command) = command {
            check_environment(env, command)?;
        }
        let args = Args::parse(env.get("CNI_ARGS").unwrap_or_default())?;
        let config = object(stdin)?;
        let network = network_name(&config)?;
        let command = command.ok_or_else(|| {
            let msg =
                format!("CNI_COMMAND {text:?} is unknown; give ADD, DEL, CHECK, GC or STATUS");
            Error::environment(msg)
        })?;
        let version = version_of(&config, command)?;
        let prev_result = match command {
            // An attachment must be removable whatever became of the result that was kept.
            Command::Del => previous(&config, version).unwrap_or_default(),
            Command::Add | Command::Check => previous(&config, version)?,
            Command::Gc | Command::Status => None,
        };
        Ok(Self {
            command,
            container_id: env.get("CNI_CONTAINERID").unwrap_or_default().to_owned(),
            ifname: env.get("CNI_IFNAME").unwrap_or_default().to_owned(),
            netns: env.get("CNI_NETNS").map(str::to_owned),
            args,
            path: env
                .get("CNI_PATH")
                .map(|p| std::env::split_paths(p).collect())
                .unwrap_or_default(),
            network,
            version,
            config,
            stdin,
            prev_result,
            env,
            registry,
        })
    }

    /// The attachment that the request is about.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The attachments that GC must keep, if the runtime said.
    ///
    /// # Errors
    /// Code 6 when the list has another form.
    pub fn valid_attachments(&self) -> Result<Option<Vec<Attachment>>, Error> {
        let names = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some((name, list)) = names.iter().find_map(|n| Some((n, self.config.get(*n)?))) else {
            return Ok(None);
        };
        let bad = |error| Error::decode(format!("{name} is no list of attachments")).details(error);
        serde_json::from_value(list.clone()).map(Some).map_err(bad)
    }

    /// Reads the configuration as a plugin's own type.
    ///
    /// # Errors
    /// Code 6 when a field is missing or of another form; the message names it.
    pub fn config_as<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.config).map_err(|error| {
            let msg = match culprit::<T>(&self.config, &error.to_string()) {
                Some(key) => format!("cannot decode {key} of the network configuration"),
                None => "cannot decode the network configuration".to_owned(),
            };
            Error::decode(msg).details(error)
        })
    }
}

/// The field without which the error would be another one, or none.
fn culprit<T: serde::de::DeserializeOwned>(
    config: &Map<String, Value>,
    error: &str,
) -> Option<String> {
    let is_to_blame = |key: &&String| {
        let mut without = config.clone();
        without.remove(*key);
        T::deserialize(&without).map_or_else(|other| other.to_string() != error, |_| true)
    };
    config.keys().find(is_to_blame).cloned()
}

fn check_environment(env: &Env, command: Command) -> Result<(), Error> {
    let missing: Vec<&str> = command
        .required()
        .iter()
        .copied()
        .filter(|name| env.get(name).is_none())
        .collect();
    if !missing.is_empty() {
        let msg = format!(
            "{} needs the environment variables: {}",
            command.as_str(),
            missing.join(", ")
        );
        return Err(Error::environment(msg));
    }
    if let Some(value) = env.get("CNI_CONTAINERID") {
        check_container_id(value)?;
    }
    env.get("CNI_IFNAME").map_or(Ok(()), check_ifname)
}

/// Code 4 for what is no container ID.
pub(crate) fn check_container_id(text: &str) -> Result<(), Error> {
    if is_identifier(text) {
        return Ok(());
    }
    Err(Error::environment(format!(
        "CNI_CONTAINERID {text:?} must begin with a letter or digit and go on with letters, \
         digits, '_', '.' and '-'"
    )))
}

/// Code 4 for what is no interface name.
pub(crate) fn check_ifname(text: &str) -> Result<(), Error> {
    ifname(text).map_err(|problem| Error::environment(format!("CNI_IFNAME {text:?} {problem}")))
}

fn ifname(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty; give a name");
    }
    if text.len() > IFNAME_MAX {
        return Err("is longer than 15 bytes; shorten it");
    }
    if text == "." || text == ".." {
        return Err("is reserved; choose another");
    }
    if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err("holds '/', ':' or white space; remove it");
    }
    if text.contains('%') {
        return Err("holds '%', by which the kernel makes up another name; remove it");
    }
    Ok(())
}

/// A container ID or network name.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn object(stdin: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(stdin) {
        Ok(Value::Object(mut fields)) => {
            drop_nulls(&mut fields);
            Ok(fields)
        }
        Ok(_) => Err(Error::decode(
            "the network configuration is JSON, but no object",
        )),
        Err(error) => Err(Error::decode("the network configuration is no JSON").details(error)),
    }
}

/// Runtimes written in Go say `null` for an empty list, and mean that there is none.
fn drop_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        inner_nulls(value);
    }
}

fn inner_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => drop_nulls(fields),
        Value::Array(items) => items.iter_mut().for_each(inner_nulls),
        _ => {}
    }
}

fn network_name(config: &Map<String, Value>) -> Result<String, Error> {
    match config.get("name").and_then(Value::as_str) {
        Some(name) if is_identifier(name) => Ok(name.to_owned()),
        Some(name) if !name.is_empty() => Err(Error::config(format!(
            "name {name:?} must begin with a letter or digit and go on with letters, digits, '_', \
             '.' and '-'"
        ))),
        _ => Err(Error::config("name is missing; name the network")),
    }
}

fn version_of(config: &Map<String, Value>, command: Command) -> Result<Version, Error> {
    let text = match config.get("cniVersion") {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(other) => return Err(Error::decode(format!("cniVersion {other} is no text"))),
    };
    let text = if text.is_empty() {
        Version::V010.as_str()
    } else {
        text
    };
    let Some(version) = Version::find(text) else {
        let msg = format!("cniVersion {text:?} is not supported; give one from 0.1.0 to 1.1.0");
        let well_formed = text.split('.').all(|part| part.parse::<u32>().is_ok());
        return Err(match command {
            Command::Check | Command::Gc | Command::Status if !well_formed => Error::decode(msg),
            _ => Error::version(msg),
        });
    };
    if version < command.since() {
        let (name, since) = (command.as_str(), command.since());
        return Err(Error::version(format!(
            "{name} needs cniVersion {since}, not {version}"
        )));
    }
    Ok(version)
}

fn previous(config: &Map<String, Value>, version: Version) -> Result<Option<AddResult>, Error> {
    let Some(document) = config.get("prevResult").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let (result, own) = AddResult::decode(document, version)?;
    if own.same_schema(version) {
        return Ok(Some(result));
    }
    let msg = format!("prevResult is of cniVersion {own}, the configuration of {version}");
    Err(Error::decode(msg))
}
