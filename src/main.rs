//! The `shadegrad` command line.
fn main() {}
