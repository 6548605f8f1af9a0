//! What a person needs when a lab fails: the ends of all logs, and each namespace's links and routes.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::layout::Layout;
use crate::namespace::{self, Namespace};

/// Lines shown of each log.
const TAIL: usize = 25;

const QUESTIONS: &[&[&str]] = &[
    &["ip", "-brief", "address"],
    &["ip", "route"],
    &["ip", "neighbour", "show", "dev", "flannel.1"],
];

/// A report on the cluster at `layout`, as far as it exists. Never fails: what cannot be read is said.
pub fn report(layout: &Layout) -> String {
    let mut text = String::from("=== diagnosis ===\n");
    for path in sorted(&layout.root().join("netns")) {
        let name = path.file_name().unwrap_or_default().display().to_string();
        let Ok(netns) = Namespace::net(&path) else {
            continue;
        };
        for argv in QUESTIONS {
            text += &format!("--- {name}: {}\n{}", argv.join(" "), ask(&netns, argv));
        }
    }
    for dir in sorted(&layout.root().join("logs")) {
        for log in sorted(&dir) {
            text += &format!("--- {}\n{}", log.display(), tail(&log));
        }
    }
    text
}

fn ask(netns: &Namespace, argv: &[&str]) -> String {
    let answer = namespace::run_in(&[netns], || {
        Ok(Command::new(argv[0]).args(&argv[1..]).output()?)
    });
    match answer {
        Ok(output) => {
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr)
        }
        Err(error) => format!("{error:#}\n"),
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("{error}\n"),
    };
    let lines = text.lines().collect::<Vec<_>>();
    lines[lines.len().saturating_sub(TAIL)..]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect()
}

fn sorted(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths = entries
        .flatten()
        .map(|entry| entry.path())
        .collect::<Vec<_>>();
    paths.sort();
    paths
}
