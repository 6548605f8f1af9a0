//! A network namespace for one test, on a thread of its own; it is gone when the test ends.

use nix::sched::{CloneFlags, unshare};

/// Runs `test` in a new network namespace. Needs root.
pub(crate) fn netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (root needed)");
            test()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
