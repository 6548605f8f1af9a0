//! The API on the Unix socket.

mod error;
pub mod views;

pub use self::error::ApiError;
