//! towline-agent
fn main() {}
