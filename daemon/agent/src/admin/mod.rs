//! The API on the Unix socket.

mod error;

pub use self::error::ApiError;
