//! The one place that polls: waiting for a condition with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(50);

/// Polls `check` until it gives a value. `Ok(Err(why))` means "not yet, because".
///
/// # Errors
/// After `limit`, an error naming `what` and the last reason; an error of `check` itself at once.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match check()? {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() >= limit => {
                bail!("{what}: not within {:.0} s: {why}", limit.as_secs_f32())
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// As [`until`], for a condition that is asked asynchronously.
///
/// # Errors
/// As [`until`].
pub async fn eventually<T, F>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<Result<T, String>>>,
{
    let start = Instant::now();
    loop {
        match check().await? {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() >= limit => {
                bail!("{what}: not within {:.0} s: {why}", limit.as_secs_f32())
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
