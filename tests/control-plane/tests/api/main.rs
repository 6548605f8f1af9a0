//! The API server on loopback, exercised by a real Kubernetes client, by raw requests, and by kubectl.

mod concurrency;
mod kubectl;
mod objects;
mod pods;
mod restart;
mod services;
mod support;
mod views;
mod watches;
