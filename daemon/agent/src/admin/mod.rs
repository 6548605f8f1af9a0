//! The API on the Unix socket.

mod api;
mod error;
mod events;
pub mod lease_views;
mod release;
#[cfg(test)]
mod tests;
pub mod views;

pub use self::api::{Admin, router};
pub use self::error::ApiError;
pub use self::events::{EventHub, EventView, Namer, protocol_name};
pub use self::release::Release;
pub use self::views::{Features, StatusView};
