//! towline-control-plane
fn main() {}
