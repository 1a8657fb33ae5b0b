//! The engine against the plain f64 twins on random shapes: odd, prime, one, zero; and on shapes as large as bindings
//! allow. Everything is seeded.

#[path = "../support/mod.rs"]
mod support;

mod elementwise;
mod fusion;
mod large;
mod movement;
mod products;
mod reductions;
mod second;
mod trial;
mod windows;
