//! towline-ebpf-programs
fn main() {}
