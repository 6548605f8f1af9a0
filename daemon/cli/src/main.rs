//! towline-cli
fn main() {}
