//! The CNI protocol (specification 1.1.0 and every version before it), without any kernel.
//!
//! [`run::run`] takes environment, standard input and output as arguments, checks the [`request`],
//! calls a [`Plugin`], and writes one JSON document: a [`result`] or an [`error`], in the version
//! the configuration asks for. [`delegate`] calls another plugin, in this process when that plugin
//! is this very program.
#![forbid(unsafe_code)]

pub mod args;
mod convert;
pub mod delegate;
pub mod env;
pub mod error;
pub mod plugin;
pub mod request;
pub mod result;
pub mod run;
pub mod runtime;
pub mod version;

pub use args::Args;
pub use env::Env;
pub use error::Error;
pub use plugin::{Attachment, Plugin};
pub use request::{Command, Request};
pub use result::{AddResult, Dns, Interface, IpConfig, Route};
pub use run::{Registry, run};
pub use version::Version;
