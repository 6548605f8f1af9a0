//! The API over HTTPS.

mod answer;
mod auth;
mod connection;
mod document;
mod handler;
mod listen;
mod negotiate;
mod path;
mod query;
mod review;
mod stream;

pub use auth::User;
pub use connection::serve;
pub use handler::Server;
pub use listen::{ListenError, Listener, NetnsListen};
