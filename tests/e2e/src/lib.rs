//! towline-e2e
