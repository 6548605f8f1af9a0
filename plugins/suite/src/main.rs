//! towline-suite
fn main() {}
