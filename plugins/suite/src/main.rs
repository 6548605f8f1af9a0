//! `towline-cni`, hard-linked under each plugin's name.

use std::process::ExitCode;

fn main() -> ExitCode {
    towline_suite::main()
}
