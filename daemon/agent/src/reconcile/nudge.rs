//! Looking as soon as the kernel says that something has changed, instead of at the next resync.

use std::io;
use std::time::Duration;

use hostnet::Changes;
use tokio::sync::watch;

/// How long what happens together is gathered: a link that flaps, or many pods that come at once,
/// cost two looks a second at most.
const GATHER: Duration = Duration::from_millis(500);
/// The kernel need not say anything for hours.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What `changes` hears, gathered, from a thread of its own that ends with the last receiver.
///
/// # Errors
/// When the system gives no thread.
pub fn nudges(mut changes: Changes) -> io::Result<watch::Receiver<()>> {
    let (told, nudges) = watch::channel(());
    let listen = move || {
        loop {
            match changes.wait(PATIENCE) {
                Ok(false) => {}
                Ok(true) => {
                    if told.send(()).is_err() {
                        return;
                    }
                    std::thread::sleep(GATHER);
                }
                // The resync goes on.
                Err(error) => return tracing::warn!(%error, "changes are seen at the resync only"),
            }
        }
    };
    let thread = std::thread::Builder::new().name("netlink-changes".to_owned());
    thread.spawn(listen)?;
    Ok(nudges)
}
