//! One run of a plugin: check, call, print.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::delegate;
use crate::env::Env;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::request::{Command, Request};
use crate::result::AddResult;
use crate::version::{ALL, CURRENT, Version};

/// The plugins that one program holds.
#[derive(Clone, Copy)]
pub struct Registry<'a> {
    plugins: &'a [&'a dyn Plugin],
    depth: u8,
}

/// How many plugins may be in one another: a meta plugin's delegate's IPAM plugin, and one to spare.
const DEEPEST: u8 = 4;

// === impl Registry ===

impl<'a> Registry<'a> {
    /// These plugins.
    #[must_use]
    pub const fn new(plugins: &'a [&'a dyn Plugin]) -> Self {
        Self { plugins, depth: 0 }
    }

    /// The plugin called `name`.
    #[must_use]
    pub fn find(self, name: &str) -> Option<&'a dyn Plugin> {
        self.plugins
            .iter()
            .copied()
            .find(|plugin| plugin.name() == name)
    }

    /// The same plugins for a call from within one of them.
    ///
    /// # Errors
    /// Code 7 when plugins delegate to each other without end.
    pub(crate) fn deeper(self, name: &str) -> Result<Self, Error> {
        if self.depth == DEEPEST {
            return Err(Error::config(format!(
                "plugin {name} is delegated to without end; name another type"
            )));
        }
        let depth = self.depth + 1;
        Ok(Self { depth, ..self })
    }

    /// The names of all.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.plugins.iter().map(|plugin| plugin.name())
    }
}

impl std::fmt::Debug for Registry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Runs `plugin` with this environment and these streams; the exit status is returned.
///
/// Standard output gets one JSON document (a result, the versions or an error) or nothing.
pub fn run(
    plugin: &dyn Plugin,
    registry: Registry<'_>,
    env: &Env,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> u8 {
    let document = match env.get("CNI_COMMAND") {
        None if env.unreadable(&["CNI_COMMAND"]).is_none() => {
            eprintln!(
                "CNI plugin {} (Towline), versions 0.1.0 to {CURRENT}",
                plugin.name()
            );
            return 0;
        }
        Some("VERSION") => Ok(Some(versions())),
        _ => answer(plugin, registry, env, stdin),
    };
    let (document, status) = match document {
        Ok(document) => (document, 0),
        Err(document) => (Some(document), 1),
    };
    let Some(document) = document else {
        return status;
    };
    match writeln!(stdout, "{document}").and_then(|()| stdout.flush()) {
        Ok(()) => status,
        Err(error) => {
            eprintln!("cannot write the answer: {error}");
            1
        }
    }
}

/// The document to print on success, if any, or else the error's document.
fn answer(
    plugin: &dyn Plugin,
    registry: Registry<'_>,
    env: &Env,
    stdin: &mut dyn Read,
) -> Result<Option<Value>, Value> {
    let mut bytes = Vec::new();
    let read = stdin.read_to_end(&mut bytes);
    let outcome = read
        .map_err(|error| Error::io("cannot read standard input").details(error))
        .and_then(|_| call(plugin, registry, env, &bytes))
        .and_then(|done| match done {
            Done::Result(result, version) => {
                undo_unsayable(plugin, registry, env, &bytes, &result, version).map(Some)
            }
            Done::Nothing => Ok(None),
        });
    outcome.map_err(|error| error_document(&error, &bytes))
}

/// Encodes an ADD's result. A result that the version cannot say fails the ADD, which is undone.
fn undo_unsayable(
    plugin: &dyn Plugin,
    registry: Registry<'_>,
    env: &Env,
    stdin: &[u8],
    result: &AddResult,
    version: Version,
) -> Result<Value, Error> {
    result.encode(version).map_err(|error| {
        let env = env.clone().with("CNI_COMMAND", Command::Del.as_str());
        match call(plugin, registry, &env, stdin) {
            Ok(_) => error,
            Err(second) => error.details(format!("then, undoing: {second}")),
        }
    })
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Result(AddResult, Version),
    Nothing,
}

/// Checks the request and calls `plugin`.
pub(crate) fn call(
    plugin: &dyn Plugin,
    registry: Registry<'_>,
    env: &Env,
    stdin: &[u8],
) -> Result<Done, Error> {
    let request = Request::parse(env, stdin, registry)?;
    match request.command {
        Command::Add => {
            return plugin
                .add(&request)
                .map(|result| Done::Result(result, request.version));
        }
        Command::Del => plugin.delete(&request)?,
        Command::Check => plugin.check(&request)?,
        Command::Gc => plugin.gc(&request, request.valid_attachments()?.as_deref())?,
        Command::Status => plugin.status(&request)?,
    }
    Ok(Done::Nothing)
}

fn versions() -> Value {
    json!({ "cniVersion": CURRENT.as_str(), "supportedVersions": ALL.map(Version::as_str) })
}

fn error_document(error: &Error, stdin: &[u8]) -> Value {
    let named = serde_json::from_slice::<Value>(stdin).ok();
    let version = named
        .as_ref()
        .and_then(|config| config.get("cniVersion")?.as_str())
        .and_then(Version::find);
    let mut document = json!({
        "cniVersion": version.unwrap_or(CURRENT).as_str(),
        "code": error.code,
        "msg": error.msg,
    });
    if !error.details.is_empty() {
        document["details"] = delegate::clipped(&error.details).into();
    }
    document
}
