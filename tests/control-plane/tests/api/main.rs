//! The API server on loopback, exercised by a real Kubernetes client, by raw requests, and by kubectl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what is not as expected fails the test, also in its helpers"
)]

mod concurrency;
mod kubectl;
mod objects;
mod pods;
mod restart;
mod services;
mod support;
mod views;
mod watches;
