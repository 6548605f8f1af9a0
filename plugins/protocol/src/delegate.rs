//! Calling another plugin: in this process when its file is this very program, else by executing it.
//!
//! Both ways have one meaning: the whole environment with another `CNI_COMMAND`, the given bytes on
//! standard input, the delegate's own checks, its result or its error.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::error::Error;
use crate::request::{Command, Request};
use crate::result::AddResult;
use crate::run::{Done, call};
use crate::version::Version;

const OWN: &str = "/proc/self/exe";
/// Longest part of a delegate's unreadable output that is passed on, in bytes.
const SHOWN: usize = 2000;

// === impl Request: delegation ===

impl Request<'_> {
    /// Has plugin `name` do an ADD with `config`.
    ///
    /// # Errors
    /// The delegate's error, or that it cannot be found or understood.
    pub fn delegate_add(&self, name: &str, config: &[u8]) -> Result<AddResult, Error> {
        match self.delegate(name, Command::Add, config)? {
            Done::Result(result, _) => Ok(result),
            Done::Nothing => Err(Error::decode(format!("plugin {name} returned no result"))),
        }
    }

    /// Has plugin `name` do `command`, which is not ADD, with `config`.
    ///
    /// # Errors
    /// The delegate's error, or that it cannot be found or understood.
    pub fn delegate_call(&self, name: &str, command: Command, config: &[u8]) -> Result<(), Error> {
        self.delegate(name, command, config).map(drop)
    }

    fn delegate(&self, name: &str, command: Command, config: &[u8]) -> Result<Done, Error> {
        let file = find(name, &self.path)?;
        let env = self.env.clone().with("CNI_COMMAND", command.as_str());
        match self.registry.find(name).filter(|_| is_this_program(&file)) {
            Some(plugin) => call(plugin, self.registry.deeper(name)?, &env, config),
            None => {
                let output = execute(&file, &env, config)?;
                understand(name, command, self.version, &output)
            }
        }
    }
}

/// What a program answered.
pub(crate) struct Output {
    success: bool,
    stdout: Vec<u8>,
}

pub(crate) fn find(name: &str, path: &[PathBuf]) -> Result<PathBuf, Error> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err(Error::config(format!(
            "plugin type {name:?} is no file name; name a plugin"
        )));
    }
    let candidates = path.iter().map(|folder| folder.join(name));
    let is_file = |file: &PathBuf| fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
    candidates.into_iter().find(is_file).ok_or_else(|| {
        let shown: Vec<String> = path
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let folders = shown.join(":");
        Error::config(format!(
            "plugin {name:?} is not in CNI_PATH {folders}; install it there"
        ))
    })
}

/// Whether `file` is the program that is running: same device, same inode.
fn is_this_program(file: &Path) -> bool {
    match (fs::metadata(file), fs::metadata(OWN)) {
        (Ok(file), Ok(own)) => (file.dev(), file.ino()) == (own.dev(), own.ino()),
        _ => false,
    }
}

pub(crate) fn execute(file: &Path, env: &crate::env::Env, config: &[u8]) -> Result<Output, Error> {
    let shown = file.display();
    let failed = |error: std::io::Error| Error::io(format!("cannot run {shown}")).details(error);
    let mut child = std::process::Command::new(file)
        .env_clear()
        .envs(env.iter())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    feed(&mut child, config).map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    Ok(Output {
        success: output.status.success(),
        stdout: output.stdout,
    })
}

/// Writes the configuration. A plugin that ends without reading it is no failure of ours.
fn feed(child: &mut Child, config: &[u8]) -> std::io::Result<()> {
    let Some(mut stdin) = child.stdin.take() else {
        return Ok(());
    };
    match stdin.write_all(config) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            // The child must not be left behind; its status no longer matters.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
        _ => Ok(()),
    }
}

pub(crate) fn understand(
    name: &str,
    command: Command,
    version: Version,
    output: &Output,
) -> Result<Done, Error> {
    let text = || clipped(&String::from_utf8_lossy(&output.stdout));
    if !output.success {
        return Err(match serde_json::from_slice::<Error>(&output.stdout) {
            Ok(error) if error.code != 0 || !error.msg.is_empty() => error,
            _ => Error::other(format!("plugin {name} failed and said no reason")).details(text()),
        });
    }
    if command != Command::Add {
        return Ok(Done::Nothing);
    }
    let document: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        let msg = format!("plugin {name} answered no JSON ({error})");
        Error::decode(msg).details(text())
    })?;
    // A plugin that names no version means the configuration's, unless its result has a form that
    // this version has not.
    let oldest = ["ip4", "ip6"].iter().any(|key| document.get(key).is_some());
    let version = if oldest { Version::V020 } else { version };
    let (result, own) = AddResult::decode(&document, version)?;
    Ok(Done::Result(result, own))
}

/// Text short enough to be passed on.
pub(crate) fn clipped(text: &str) -> String {
    text.char_indices()
        .take_while(|(at, _)| *at < SHOWN)
        .map(|(_, c)| c)
        .collect()
}
