//! What the integration tests share: the golden cases and the plain f64 twins of the ops.
#![allow(dead_code)]

pub mod golden;
pub mod reference;
