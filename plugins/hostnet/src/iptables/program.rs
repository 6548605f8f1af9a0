//! Which iptables program to run, and running it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use netstate::nft::Family;

use crate::error::{Error, ErrorKind, Result};
use crate::iptables::presence;

/// Where administrators' programs are, whatever little the runtime put into `PATH`.
const FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];

/// `iptables`, `ip6tables` or one of their variants, such as `iptables-legacy`.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
}

// === impl Program ===

impl Program {
    /// The program that sees `table`: the system's own variant, unless only the other one has the
    /// table and is installed.
    pub(super) fn find(family: Family, table: &str) -> Result<Self> {
        let own = Self {
            name: base(family).to_owned(),
        };
        let (legacy, nft) = (
            presence::has_legacy(family, table)?,
            presence::has_nft(family, table)?,
        );
        if legacy == nft {
            return Ok(own);
        }
        let wanted = if legacy { "legacy" } else { "nft" };
        let Some(real) = own.path("restore").and_then(|p| fs::canonicalize(p).ok()) else {
            return Ok(own);
        };
        // xtables-nft-multi or xtables-legacy-multi, the one program under all names.
        let is_legacy = real.to_string_lossy().contains("legacy");
        let other = Self {
            name: format!("{}-{wanted}", own.name),
        };
        if is_legacy == legacy || other.path("save").is_none() {
            return Ok(own);
        }
        // An old kernel has all legacy tables as soon as the module is there, empty.
        if legacy {
            let saved = super::read(&other, table)?;
            let mut chains = saved.chains.values();
            if chains.all(|chain| chain.policy == "ACCEPT" && chain.rules.is_empty()) {
                return Ok(own);
            }
        }
        Ok(other)
    }

    /// The legacy variant, or where it has no name of its own, the system's.
    pub(super) fn legacy(family: Family) -> Result<Self> {
        let name = base(family);
        let variant = Self {
            name: format!("{name}-legacy"),
        };
        if variant.path("save").is_some() {
            return Ok(variant);
        }
        let name = name.to_owned();
        Ok(Self { name })
    }

    /// Runs `<name>-<verb>` with `input`; what it printed is returned.
    pub(super) fn run(&self, verb: &str, arguments: &[&str], input: &str) -> Result<String> {
        let shown = format!("{}-{verb}", self.name);
        let Some(path) = self.path(verb) else {
            return Err(missing(shown));
        };
        let failed = |error| Error::io("run", &shown, &error);
        let mut child = Command::new(path)
            .args(arguments)
            // It may have to load a module by a program of its own.
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let output = thread::scope(|scope| {
            // Beside reading, so that neither side waits for the other with a full pipe.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
            child.wait_with_output()
        });
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = format!("{}: {}", output.status, one_line(&said));
        let mut error = Error::invalid("run", shown, reason);
        error.kind = ErrorKind::Other;
        Err(error)
    }

    fn path(&self, verb: &str) -> Option<PathBuf> {
        let file = format!("{}-{verb}", self.name);
        let folders = search_path();
        env::split_paths(&folders)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(&file))
            .find(|path| Path::is_file(path))
    }
}

const fn base(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    for folder in FOLDERS {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(folder);
    }
    path
}

fn missing(program: String) -> Error {
    let reason = "is not installed; install the package iptables, or choose the backend nftables";
    let mut error = Error::invalid("run", program, reason);
    // Not "not found": for a deletion that would mean there is nothing to delete.
    error.kind = ErrorKind::Unsupported;
    error
}

/// What a program said, without warnings' comment signs and line breaks.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let said: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let name = "towline-no-such-iptables".to_owned();
        let error = Program { name }.run("save", &[], "").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        let expected = "run towline-no-such-iptables-save: is not installed; install the package \
                        iptables, or choose the backend nftables";
        assert_eq!(error.to_string(), expected);
    }
}
