//! `cargo run -p xtask -- tidy`: checks of the repository's own rules that no compiler makes.

mod tidy;

use clap::{Parser, Subcommand};

/// Tasks of the repository itself.
#[derive(Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check layering, file lengths, names, the places of `unsafe`, licences and stray paths
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Tidy => tidy::run(),
    }
}
