//! towline-lab
fn main() {}
