//! What the integration tests share: the golden cases, the engine's answers to them, the plain f64 twins of the ops.
#![allow(dead_code)]

pub mod engine;
pub mod golden;
pub mod reference;
