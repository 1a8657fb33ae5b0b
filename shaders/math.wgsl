// Scalar functions that are right at the ends of their range and accurate near zero, on every driver.
// include: half.wgsl

const SQRT_2_PI = 0.79788456080286536; // sqrt(2 / pi)
const RSQRT_2PI = 0.39894228040143268; // 1 / sqrt(2 pi)

// By its bits: drivers may take `x != x` for false.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// `max`, `min` and `clamp` may turn a NaN into a bound, and so a diverged network into a constant one; these do not.
fn max_(a: f32, b: f32) -> f32 {
    return select(select(max(a, b), b, is_nan(b)), a, is_nan(a));
}

fn min_(a: f32, b: f32) -> f32 {
    return select(select(min(a, b), b, is_nan(b)), a, is_nan(a));
}

fn clamp_(x: f32, low: f32, high: f32) -> f32 {
    return select(clamp(x, low, high), x, is_nan(x));
}

fn relu(x: f32) -> f32 {
    return select(max(x, 0.0), x, is_nan(x));
}

// From -104 on, exp is 0 in f32; up to 88.7228 it is finite.
fn exp_(x: f32) -> f32 {
    return exp(clamp_(x, -104.0, 88.7228));
}

fn expm1_(x: f32) -> f32 {
    // Taylor's series where the subtraction would cancel.
    let series = x * (1.0 + x * (0.5 + x * (0.16666667 + x * (0.041666668 + x * (0.0083333334 + x * 0.0013888889)))));
    return select(exp_(x) - 1.0, series, abs(x) < 0.3);
}

// WGSL allows log an absolute error of 2^-21 around 1.
fn log_(x: f32) -> f32 {
    return select(log(x), log1p_(x - 1.0), abs(x - 1.0) < 0.06);
}

fn log1p_(x: f32) -> f32 {
    let series = x * (1.0 - x * (0.5 - x * (0.33333334 - x * (0.25 - x * (0.2 - x * 0.16666667)))));
    return select(log(1.0 + x), series, abs(x) < 0.06);
}

fn sigmoid(x: f32) -> f32 {
    let e = exp_(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

fn tanh_(x: f32) -> f32 {
    let e = exp_(-2.0 * abs(x));
    let s = x * x;
    let series = x * (1.0 - s * (0.33333334 - s * (0.13333334 - s * (0.053968254 - s * 0.021869488))));
    return select(sign(x) * (1.0 - e) / (1.0 + e), series, abs(x) < 0.25);
}

fn softplus(x: f32, beta: f32, threshold: f32) -> f32 {
    let z = x * beta;
    return select((max(z, 0.0) + log1p_(exp_(-abs(z)))) / beta, x, z > threshold);
}

fn log_sigmoid(x: f32) -> f32 {
    return min(x, 0.0) - log1p_(exp_(-abs(x)));
}

// sin(x + quarters pi / 2). WGSL's own has an absolute error of up to 2^-11, and any beyond pi. Less its nearest multiple of
// pi / 2, subtracted in parts of few bits (Cody and Waite, 1980), x goes into the polynomials of the Cephes library
// (Moshier, 1992): an absolute error of 1e-7 up to |x| = 10,000, of 1e-6 up to 100,000.
fn sin_of(x: f32, quarters: u32) -> f32 {
    let turns = round(x * 0.63661977);
    let r = ((x - turns * 1.5703125) - turns * 0.0004837513) - turns * 7.5497901e-8;
    let s = r * r;
    let odd = r + r * s * (-0.16666655 + s * (0.0083321609 - s * 0.00019515296));
    let even = 1.0 - 0.5 * s + s * s * (0.041666646 + s * (-0.0013887316 + s * 2.4433157e-5));
    let quarter = bitcast<u32>(i32(clamp(turns, -1e9, 1e9))) + quarters;
    let v = select(odd, even, (quarter & 1u) == 1u);
    return select(v, -v, (quarter & 2u) == 2u);
}

fn sin_(x: f32) -> f32 {
    return sin_of(x, 0u);
}

fn cos_(x: f32) -> f32 {
    return sin_of(x, 1u);
}

fn silu(x: f32) -> f32 {
    return x * sigmoid(x);
}

fn mish(x: f32) -> f32 {
    return x * tanh_(softplus(x, 1.0, 20.0));
}

// x P(x^2) / Q(x^2), fitted for the least relative error up to 3.9, where 1 is the nearest float: 2e-8 before rounding,
// 3.5e-7 with it. At 4.1 it is beyond 1 by more than any rounding, so that the second clamp gives exactly 1 from there on.
fn erf(x: f32) -> f32 {
    let c = clamp(x, -4.1, 4.1);
    let s = c * c;
    let p = 1.1283791 + s * (0.189656 + s * (0.052666482 + s * (0.0037378406 + s * (0.0002850441 + s * 2.0664656e-6))));
    let q = 1.0 + s * (0.50141102 + s * (0.11381433 + s * (0.014913264 + s * (0.0011572414 + s * 3.8269001e-5))));
    return select(clamp(c * p / q, -1.0, 1.0), x, is_nan(x));
}

// The square of 5.2, where Phi is 1 - 1e-7.
const FAR = 27.04;

// The normal distribution's Phi(x) as 1/2 + x P(x^2) / Q(x^2), fitted for the least error up to 5.2: 6e-8 before rounding,
// 2.3e-7 with it. Beyond, the quotient stays and x grows, so that from 5.6 on it is exactly 0 or 1; one of these for NaN.
fn normal_cdf(x: f32) -> f32 {
    // As integers: a NaN costs no tests, and neither order nor result change, as squares have no sign.
    let s = bitcast<f32>(min(bitcast<u32>(x * x), bitcast<u32>(FAR)));
    let p = 794850.98 + s * (98810.872 + s * (10995.578 + s * (626.14863 + s * 11.637055)));
    let q = 1992397.7 + s * (579736.66 + s * (74396.372 + s * (5387.0016 + s * (224.62874 + s))));
    return saturate(0.5 + x * p / q);
}

fn gelu(x: f32) -> f32 {
    return x * normal_cdf(x);
}

// Derivative of gelu: Phi(x) + x phi(x).
fn gelu_slope(x: f32) -> f32 {
    return normal_cdf(x) + x * RSQRT_2PI * exp_(-0.5 * min(x * x, 200.0));
}

// The tanh form of gelu (Hendrycks and Gimpel, 2016), as PyTorch's approximate="tanh".
fn gelu_tanh(x: f32) -> f32 {
    let c = clamp_(x, -20.0, 20.0);
    return 0.5 * x * (1.0 + tanh_(SQRT_2_PI * (c + 0.044715 * c * c * c)));
}

fn gelu_tanh_slope(x: f32) -> f32 {
    let c = clamp_(x, -20.0, 20.0);
    let t = tanh_(SQRT_2_PI * (c + 0.044715 * c * c * c));
    return 0.5 * (1.0 + t) + 0.5 * c * (1.0 - t * t) * SQRT_2_PI * (1.0 + 0.134145 * c * c);
}

fn elu(x: f32, alpha: f32, scale: f32, rate: f32) -> f32 {
    return scale * select(alpha * expm1_(x * rate), x, x > 0.0);
}

// x to the power y; a negative x needs a whole y.
fn pow_(x: f32, y: f32) -> f32 {
    let magnitude = exp2(clamp_(y * log2(abs(x)), -149.0, 128.0));
    let odd = fract(abs(y) * 0.5) != 0.0;
    let signed = select(magnitude, -magnitude, x < 0.0 && odd);
    let at_zero = select(select(0.0, infinity(), y < 0.0), 1.0, y == 0.0);
    return select(signed, at_zero, x == 0.0 || y == 0.0) + select(0.0, nan(), x < 0.0 && fract(y) != 0.0);
}

// A NaN that constant folding cannot see.
fn nan() -> f32 {
    var bits = 0x7fc00000u;
    return bitcast<f32>(bits);
}

// The same for a number of which all is to be computed on the device: there, infinities are no errors.
fn opaque(x: f32) -> f32 {
    var y = x;
    return y;
}

// The same for infinity.
fn infinity() -> f32 {
    var bits = 0x7f800000u;
    return bitcast<f32>(bits);
}
