//! `towline node`: what is done to a node as a whole.

use serde_json::Value;

use crate::args::{NodeCommand, Options};
use crate::client::Daemon;
use crate::table::cell;
use crate::{adopt, print};

/// Does what `command` asks for.
pub(crate) async fn run(
    command: &NodeCommand,
    daemon: &Daemon,
    options: &Options,
) -> anyhow::Result<()> {
    match command {
        NodeCommand::Release { yes } => {
            let answer = daemon.post(&format!("/v1/node/release?yes={yes}")).await?;
            print(options, &answer, || released(&answer))
        }
        NodeCommand::Adopt { subnet_file } => {
            let leases = daemon.get("/v1/leases").await.ok();
            let report = adopt::report(subnet_file, leases.as_ref())?;
            print(options, &report, || adopt::text(&report))
        }
    }
}

/// What was given back and removed, in words.
pub(crate) fn released(answer: &Value) -> String {
    let removed = &answer["removed"];
    let lines = [
        ("lease", &answer["subnets"]),
        ("routes", &removed["routes"]),
        ("devices", &removed["devices"]),
        ("rules", &removed["rules"]),
        ("files", &removed["files"]),
    ];
    let mut text = String::new();
    for (name, gone) in lines {
        if gone.as_array().is_some_and(|gone| !gone.is_empty()) {
            text += &format!("{name:<9} {}\n", cell(gone));
        }
    }
    if text.is_empty() {
        text += "There was nothing left to give back or to remove.\n";
    }
    text + "towlined runs on, and takes no lease before it is restarted.\n"
}
