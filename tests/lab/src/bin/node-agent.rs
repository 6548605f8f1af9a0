//! node agent
fn main() {}
