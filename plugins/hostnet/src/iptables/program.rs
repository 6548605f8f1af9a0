//! Which iptables program to run, and running it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netstate::nft::Family;

use crate::error::{Error, ErrorKind, Result};
use crate::iptables::presence;

/// Where administrators' programs are, whatever little the runtime put into `PATH`.
const FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];

/// How long a program may take. Large tables take seconds, and `iptables-restore` waits for the
/// programs' own lock as long as it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

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
        self.run_for(PATIENCE, verb, arguments, input)
    }

    fn run_for(
        &self,
        patience: Duration,
        verb: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String> {
        let shown = format!("{}-{verb}", self.name);
        let Some(path) = self.path(verb) else {
            return Err(missing(shown));
        };
        let failed = |error| Error::io("run", &shown, &error);
        let child = Command::new(path)
            .args(arguments)
            // It may have to load a module by a program of its own.
            .env("PATH", search_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let Some(output) = output_of(child, input.to_owned(), patience).map_err(failed)? else {
            let reason = format!(
                "gave no answer within {} s and was ended",
                patience.as_secs()
            );
            return Err(refusal(shown, reason));
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(refusal(
            shown,
            format!("{}: {}", output.status, one_line(&said)),
        ))
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

fn refusal(program: String, reason: String) -> Error {
    let mut error = Error::invalid("run", program, reason);
    error.kind = ErrorKind::Other;
    error
}

/// What `child` makes of `input`; nothing if it takes longer than `patience`, and then it is ended.
/// Its pipes are served by threads of their own, so that neither side waits for the other with a full
/// one, and nobody for a pipe that a process which outlives it keeps open.
fn output_of(mut child: Child, input: String, patience: Duration) -> io::Result<Option<Output>> {
    let (tell, told) = mpsc::channel();
    let serve = |is_error, pipe: Option<Box<dyn Read + Send>>| {
        let tell = tell.clone();
        thread::Builder::new().spawn(move || {
            let mut said = Vec::new();
            let read = pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut said));
            tell.send((is_error, read.map(|_| said)))
        })
    };
    serve(true, child.stderr.take().map(|pipe| Box::new(pipe) as _))?;
    serve(false, child.stdout.take().map(|pipe| Box::new(pipe) as _))?;
    let stdin = child.stdin.take();
    let feed = move || stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
    thread::Builder::new().spawn(feed)?;
    let end = Instant::now() + patience;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((true, said)) => stderr = said?,
            Ok((false, said)) => stdout = said?,
            Err(_) => {
                child.kill()?;
                // It may take its time even then.
                thread::Builder::new().spawn(move || child.wait())?;
                return Ok(None);
            }
        }
    }
    let status = child.wait()?;
    Ok(Some(Output {
        status,
        stdout,
        stderr,
    }))
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

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("slow").display().to_string();
        std::os::unix::fs::symlink("/bin/sleep", format!("{name}-save")).unwrap();
        let program = Program { name: name.clone() };
        let begun = Instant::now();
        let patience = Duration::from_secs(1);
        let error = program.run_for(patience, "save", &["600"], "").unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(error.kind, ErrorKind::Other);
        let expected = format!("run {name}-save: gave no answer within 1 s and was ended");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn more_than_a_pipe_holds_goes_in_and_out() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("echo").display().to_string();
        std::os::unix::fs::symlink("/bin/cat", format!("{name}-restore")).unwrap();
        let text = "-A FORWARD -j ACCEPT\n".repeat(100_000);
        assert_eq!(Program { name }.run("restore", &[], &text).unwrap(), text);
    }
}
