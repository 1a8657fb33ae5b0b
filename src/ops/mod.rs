//! The operations: shape rule, gradient rule and kernels of each, one file per family beside its shader.
//!
//! | file | methods of [`Tensor`](crate::Tensor) | shader |
//! |---|---|---|
//! | `unary` | `relu`, `gelu`, `exp`, ... | `math.wgsl`, `pointwise.wgsl` |
//! | `binary` | `+ - * /`, `maximum`, `gt`, `where_`, ... | `pointwise.wgsl` |
//! | `shape` | `reshape`, `permute`, `slice`, `expand`, ... | (index rules) |
//! | `movement` | `concat`, `pad`, `gather`, `index_select` | `movement.wgsl` |
//! | `reduce` | `sum`, `mean`, `amax`, `argmax`, `var`, ... | `reduce.wgsl`, `reduce_lines.wgsl` |
//! | `embedding` | `embedding` | `embedding.wgsl`, `movement.wgsl` |
//! | `matmul` | `matmul`, `linear` | `matmul.wgsl`, `gemm.wgsl` |
//! | `attention`, `attention_grad` | `scaled_dot_product_attention` | `attention.wgsl`, `attention_grad.wgsl` |
//! | `conv2d`, `winograd` | `conv2d` | `conv2d_*.wgsl`, `gemm.wgsl`, `winograd.wgsl` |
//! | `pool` | `max_pool2d`, `avg_pool2d` | `pool.wgsl` |
//! | `normalize` | `layer_norm`, `rms_norm`, `group_norm`, `instance_norm` | `normalize.wgsl` |
//! | `batch_norm` | `batch_norm`, `batch_statistics` | `channels.wgsl` |
//! | `softmax` | `softmax`, `log_softmax`, `logsumexp` | `softmax.wgsl`, `exponentials.wgsl` |
//! | `cross_entropy` | `cross_entropy` | `cross_entropy.wgsl`, `exponentials.wgsl` |
//! | `lines` | what reductions, norms, softmax and cross-entropy share | `lines.wgsl`, `team.wgsl` |
//! | `loss` | `mse_loss` | (composed) |
//! | `recurrent` | `recurrent` | `recurrent_*.wgsl`, `cells.wgsl` |
//! | `random` | `dropout` | `random.wgsl` |
//! | `images` | `image_batch` | `images.wgsl` |
//! | `assign` | `Graph::assign` | (a copy) |

mod assign;
mod attention;
mod batch_norm;
mod binary;
mod conv2d;
mod cross_entropy;
mod embedding;
pub(crate) mod gemm;
mod images;
mod lines;
mod loss;
mod matmul;
mod movement;
mod normalize;
pub(crate) mod pointwise;
mod pool;
mod random;
mod recurrent;
mod reduce;
mod shape;
mod softmax;
mod unary;
mod winograd;

pub use attention::Attention;
pub use conv2d::Conv2dOptions;
pub use cross_entropy::CrossEntropy;
pub use images::ImageBatch;
pub use loss::Reduction;
pub use movement::PadMode;
pub use pool::Window;
pub(crate) use random::complete;
pub use recurrent::{Cell, LayerWeights, Recurrence, States};
