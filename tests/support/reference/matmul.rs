//! Matrix products.

use super::{Array, broadcast_shape};

/// `a [.., M, K]` times `b [.., K, N]`; a transpose flag says that the operand's last two axes are stored swapped.
/// Leading axes broadcast.
pub fn matmul(a: &Array, b: &Array, transpose_a: bool, transpose_b: bool) -> Array {
    let (a, b) = (transposed_if(transpose_a, a), transposed_if(transpose_b, b));
    let (batch_a, batch_b) = (&a.shape[..a.rank() - 2], &b.shape[..b.rank() - 2]);
    let mut shape = broadcast_shape(batch_a, batch_b).expect("batch axes that broadcast");
    let [m, k] = last_two(&a);
    let [inner, n] = last_two(&b);
    assert_eq!(k, inner, "inner extents");
    shape.extend([m, n]);
    let batch = shape[..shape.len() - 2].to_vec();
    let (of_a, of_b) = (matrix_numbers(batch_a, &batch), matrix_numbers(batch_b, &batch));
    let mut y = Array::zeros(shape);
    for (batch, out) in y.data.chunks_exact_mut((m * n).max(1)).enumerate() {
        let a = &a.data[of_a[batch] * m * k..][..m * k];
        let b = &b.data[of_b[batch] * k * n..][..k * n];
        for row in 0..m {
            for column in 0..n {
                out[row * n + column] = (0..k).map(|i| a[row * k + i] * b[i * n + column]).sum();
            }
        }
    }
    y
}

/// Which matrix of an operand with batch axes `own` each matrix of the broadcast batch uses.
fn matrix_numbers(own: &[usize], batch: &[usize]) -> Vec<usize> {
    let count = own.iter().product::<usize>();
    let numbers = Array::new(own, (0..count).map(|i| i as f64).collect());
    numbers.broadcast_to(batch).data.into_iter().map(|i| i as usize).collect()
}

/// Gradients of [`matmul`] with respect to `a` and `b`.
pub fn matmul_vjp(a: &Array, b: &Array, transpose_a: bool, transpose_b: bool, dy: &Array) -> [Array; 2] {
    // With A and B the operands after their transposes: dA = dY B', dB = A' dY.
    let da = transposed_if(transpose_a, &matmul(dy, b, false, !transpose_b));
    let db = transposed_if(transpose_b, &matmul(a, dy, !transpose_a, false));
    [da.sum_to(&a.shape), db.sum_to(&b.shape)]
}

/// `x [.., in]` times the transpose of `weight [out, in]`, plus `bias [out]`.
pub fn linear(x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let [outputs, inputs] = last_two(weight);
    let mut shape = x.shape.clone();
    *shape.last_mut().expect("a rank of at least 1") = outputs;
    let mut y = matmul(&rows(x, inputs), weight, false, true).reshape(shape);
    if let Some(bias) = bias {
        y.data.iter_mut().enumerate().for_each(|(i, v)| *v += bias.data[i % outputs]);
    }
    y
}

/// Gradients of [`linear`] with respect to `x`, `weight` and `bias`.
pub fn linear_vjp(x: &Array, weight: &Array, dy: &Array) -> [Array; 3] {
    let [outputs, inputs] = last_two(weight);
    let dy = rows(dy, outputs);
    let [dx, dw] = matmul_vjp(&rows(x, inputs), weight, false, true, &dy);
    [dx.reshape(x.shape.clone()), dw, dy.sum_to(&[outputs])]
}

fn rows(x: &Array, columns: usize) -> Array {
    x.clone().reshape([x.len() / columns, columns])
}

fn last_two(x: &Array) -> [usize; 2] {
    [x.shape[x.rank() - 2], x.shape[x.rank() - 1]]
}

fn transposed_if(condition: bool, x: &Array) -> Array {
    if !condition {
        return x.clone();
    }
    let mut shape = x.shape.clone();
    let rank = shape.len();
    shape.swap(rank - 2, rank - 1);
    Array::from_fn(shape, |index| {
        let mut index = index.to_vec();
        index.swap(rank - 2, rank - 1);
        x.at(&index)
    })
}
