//! Plain f64 twins of every op: naive loops, written to be obviously right, never to be fast.
#![allow(dead_code, unused_imports)]

mod array;
mod attention;
mod attrs;
mod binary;
mod compare;
mod conv;
pub mod convnet;
pub mod loss;
mod matmul;
mod normalize;
pub mod numeric;
pub mod optim;
mod pool;
mod random;
mod recurrent;
mod reduce;
pub mod shape;
mod twin;
mod unary;

pub use array::{Array, axis, broadcast_shape};
pub use attention::Attention;
pub use attrs::Attrs;
pub use binary::{Binary, select, select_vjp};
pub use compare::{Worst, compare};
pub use conv::Conv2d;
pub use matmul::{linear, linear_vjp, matmul, matmul_vjp};
pub use normalize::{Normalize, batch_norm_eval, batch_norm_eval_vjp};
pub use pool::{AvgPool2d, MaxPool2d};
pub use random::Random;
pub use recurrent::Stack;
pub use reduce::{
    Reduce, argmax, argmin, cumsum, log_softmax, log_softmax_vjp, logsumexp, reduce, reduce_vjp, softmax, softmax_vjp,
};
pub use twin::{Named, Twin, twin};
pub use unary::{Unary, erf, glu, prelu, prelu_vjp};
