//! The iptables programs: the only place that runs them.
//!
//! They are run in the network namespace of the calling thread, one `iptables-save` to see a table
//! and one `iptables-restore` to change it. [`has_table`] and [`may_have_chain`] tell without any
//! process whether there can be anything, so that who does not use iptables never pays for it.

mod presence;
mod program;
mod target;

use netstate::iptables::{Batch, Saved};
use netstate::nft::Family;

use crate::error::{Error, Result};
use crate::lock;
use program::Program;

pub use presence::{has_table, is_forwarding_filtered, may_have_chain};
pub use target::IptablesTarget;

/// Our own processes change tables one after the other under this lock. The programs' own
/// (`/run/xtables.lock`) is not taken: they take it themselves.
const LOCK: &str = "iptables";
/// Times a change is planned anew when another program changed the table in between.
const ATTEMPTS: u32 = 4;

/// What `table` of `family` holds now, as `iptables-save` prints it.
///
/// # Errors
/// When the program is not installed or fails.
pub fn save(family: Family, table: &str) -> Result<Saved> {
    read(&Program::find(family, table)?, table)
}

/// Changes `table` of `family` by what `plan` makes of its present content.
///
/// Our own processes do so one at a time, so that "add unless it is there" adds once. A foreign
/// program may still change the table between reading and changing: then what fails is planned anew.
/// A plan without changes runs nothing more.
///
/// # Errors
/// When the program is not installed or refuses. Nothing has changed then.
pub fn update(family: Family, table: &str, plan: &dyn Fn(&Saved) -> Batch) -> Result<()> {
    let program = Program::find(family, table)?;
    let _ours = lock::exclusive(LOCK)?;
    let mut saved = read(&program, table)?;
    for _ in 1..ATTEMPTS {
        let Err(error) = write(&program, &plan(&saved)) else {
            return Ok(());
        };
        let now = read(&program, table)?;
        if now == saved {
            return Err(error);
        }
        saved = now;
    }
    write(&program, &plan(&saved))
}

fn read(program: &Program, table: &str) -> Result<Saved> {
    let text = program.run("save", &["-t", table], "")?;
    Ok(Saved::parse(&text, table))
}

fn write(program: &Program, batch: &Batch) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let invalid = |error| Error::invalid("write iptables rules for", batch.table(), error);
    let text = batch.render().map_err(invalid)?;
    program
        .run("restore", &["-w", "5", "--noflush"], &text)
        .map(drop)
}
