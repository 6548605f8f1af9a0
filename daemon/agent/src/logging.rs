//! Log lines on stderr, with fields.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, LogFormat};

/// Sends log lines of this process to stderr, as `config` says.
///
/// # Errors
/// When the filter is not one.
pub fn init(config: &Config) -> Result<(), ConfigError> {
    // The client logs every failed request as an error; the watches say it once, and better.
    let filter = match config.log.contains("kube_client") {
        true => config.log.clone(),
        false => format!("kube_client=off,{}", config.log),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        let remedy = format!("{error}; write a level such as info, or target=level,...");
        ConfigError::new("settings", "log", &config.log, remedy)
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let done = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // Somebody embedding the daemon may have set up logging already.
    drop(done);
    Ok(())
}
