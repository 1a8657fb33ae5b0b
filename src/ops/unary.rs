//! Element-wise functions of one tensor.
//!
//! A new one takes a function in `shaders/math.wgsl` and a method here with its gradient rule.

use crate::graph::{Backward, Candidate, Caps, DType, Desc, Io, Op, Pointwise, Tensor, float};

type Rule = fn(&Backward<'_>, &[f32]) -> Option<Tensor>;

/// A function of one operand, with constant arguments.
struct Unary {
    name: &'static str,
    expr: &'static str,
    args: Vec<f32>,
    dtype: Option<DType>,
    rule: Rule,
}

impl std::fmt::Debug for Unary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}{:?}", self.name, self.args.iter().map(|a| a.to_bits()).collect::<Vec<_>>(), self.dtype)
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        let x = &inputs[0];
        if self.dtype.is_none() && x.dtype != DType::F32 {
            return Err(format!("it needs an f32 tensor, not {x}; use cast"));
        }
        Ok(vec![Desc::new(&x.shape, self.dtype.unwrap_or(DType::F32))])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![(self.rule)(node, &self.args)]
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn halves(&self) -> bool {
        self.dtype.is_some()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        let mut text = self.expr.to_string();
        for (name, value) in ["{a}", "{b}", "{c}"].iter().zip(&self.args) {
            text = text.replace(name, &float(*value));
        }
        Some(Pointwise(text))
    }
}

/// No gradient flows.
fn flat(_: &Backward<'_>, _: &[f32]) -> Option<Tensor> {
    None
}

impl Tensor {
    #[track_caller]
    fn unary(&self, name: &'static str, expr: &'static str, args: &[f32], rule: Rule) -> Tensor {
        self.graph().push1(Unary { name, expr, args: args.to_vec(), dtype: None, rule }, &[self])
    }

    /// The same values in another element type; floats are truncated towards zero to integers, and rounded to f16,
    /// which has no finite numbers beyond 65,504 and, on some devices, none below 6.1e-5. Gradients pass between floats.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype() {
            return self.clone();
        }
        let expr = match dtype {
            DType::F32 => "f32({0})",
            DType::U32 => "u32({0})",
            DType::I32 => "i32({0})",
            DType::F16 => "to_half(f32({0}))",
        };
        let floats = dtype.is_float() && self.dtype().is_float();
        let rule: Rule = if floats { |n, _| Some(n.dy()) } else { flat };
        self.graph().push1(Unary { name: "cast", expr, args: Vec::new(), dtype: Some(dtype), rule }, &[self])
    }

    /// The same values, through which no gradient flows.
    #[track_caller]
    pub fn detach(&self) -> Tensor {
        let op = Unary { name: "detach", expr: "{0}", args: Vec::new(), dtype: Some(self.dtype()), rule: flat };
        self.graph().push1(op, &[self])
    }

    /// `max(x, 0)`; the gradient at 0 is 0.
    #[track_caller]
    pub fn relu(&self) -> Tensor {
        self.unary("relu", "relu({0})", &[], |n, _| Some(n.dy() * n.outputs[0].gt_scalar(0.0)))
    }

    /// `min(max(x, 0), 6)`.
    #[track_caller]
    pub fn relu6(&self) -> Tensor {
        self.clamp(0.0, 6.0)
    }

    /// `x` between `min` and `max`; the gradient is 0 outside.
    #[track_caller]
    pub fn clamp(&self, min: f32, max: f32) -> Tensor {
        self.unary("clamp", "clamp_({0}, {a}, {b})", &[min, max], |n, args| {
            let inside = n.x(0).ge_scalar(args[0]) * n.x(0).le_scalar(args[1]);
            Some(n.dy() * inside)
        })
    }

    /// `hardtanh`: [`Tensor::clamp`], whose gradient is 0 at the bounds themselves.
    #[track_caller]
    pub fn hardtanh(&self, min: f32, max: f32) -> Tensor {
        self.unary("hardtanh", "clamp_({0}, {a}, {b})", &[min, max], |n, args| {
            let inside = n.x(0).gt_scalar(args[0]) * n.x(0).lt_scalar(args[1]);
            Some(n.dy() * inside)
        })
    }

    /// `x` where positive, else `slope * x`.
    #[track_caller]
    pub fn leaky_relu(&self, slope: f32) -> Tensor {
        self.unary("leaky_relu", "select({a} * {0}, {0}, {0} > 0.0)", &[slope], |n, args| {
            let positive = n.x(0).gt_scalar(0.0);
            Some(n.dy() * (positive * (1.0 - args[0]) + args[0]))
        })
    }

    /// `scale * (x if x > 0 else alpha * (exp(rate x) - 1))`; the slope left of 0 is `rate (y + scale alpha)`.
    #[track_caller]
    fn elu_family(&self, name: &'static str, alpha: f32, scale: f32, rate: f32) -> Tensor {
        self.unary(name, "elu({0}, {a}, {b}, {c})", &[alpha, scale, rate], |n, args| {
            let [alpha, scale, rate] = [args[0], args[1], args[2]];
            let positive = n.x(0).gt_scalar(0.0);
            let left = (&n.outputs[0] + scale * alpha) * rate;
            Some(n.dy() * positive.where_(&n.x(0).full_like(scale), &left))
        })
    }

    /// Exponential linear unit (Clevert et al., 2015).
    #[track_caller]
    pub fn elu(&self, alpha: f32) -> Tensor {
        self.elu_family("elu", alpha, 1.0, 1.0)
    }

    /// Scaled exponential linear unit (Klambauer et al., 2017).
    #[track_caller]
    pub fn selu(&self) -> Tensor {
        self.elu_family("selu", 1.673_263_2, 1.050_701, 1.0)
    }

    /// Continuously differentiable exponential linear unit (Barron, 2017).
    #[track_caller]
    pub fn celu(&self, alpha: f32) -> Tensor {
        self.elu_family("celu", alpha, 1.0, 1.0 / alpha)
    }

    /// Gaussian error linear unit in its exact form, `x Phi(x)` (Hendrycks and Gimpel, 2016).
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        self.unary("gelu", "gelu({0})", &[], |n, _| {
            let slope = n.x(0).unary("gelu_slope", "gelu_slope({0})", &[], |n, _| {
                // phi(x) (2 - x^2)
                let x2 = n.x(0).square();
                Some(n.dy() * (&x2 * -0.5).exp() * (2.0 - x2) * 0.398_942_3)
            });
            Some(n.dy() * slope)
        })
    }

    /// Gaussian error linear unit, tanh approximation.
    #[track_caller]
    pub fn gelu_tanh(&self) -> Tensor {
        self.unary("gelu_tanh", "gelu_tanh({0})", &[], |n, _| {
            let slope = n.x(0).unary("gelu_tanh_slope", "gelu_tanh_slope({0})", &[], |n, _| {
                // With t = tanh(u(x)): (1 - t^2) (u' + x (u''/2 - t u'^2))
                let (x, x2) = (n.x(0), n.x(0).square());
                let t = (x * (&x2 * 0.035_677_41 + 0.797_884_6)).tanh();
                let rise = x2 * 0.107_032_22 + 0.797_884_6;
                let bend = x * 0.107_032_22 - &t * rise.square();
                Some(n.dy() * (1.0 - t.square()) * (rise + x * bend))
            });
            Some(n.dy() * slope)
        })
    }

    /// `x sigmoid(x)`.
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        self.unary("silu", "silu({0})", &[], |n, _| {
            let s = n.x(0).sigmoid();
            Some(n.dy() * (&s * (1.0 + n.x(0) * (1.0 - &s))))
        })
    }

    /// `x tanh(softplus(x))` (Misra, 2019).
    #[track_caller]
    pub fn mish(&self) -> Tensor {
        self.unary("mish", "mish({0})", &[], |n, _| {
            let t = n.x(0).softplus(1.0, 20.0).tanh();
            let s = n.x(0).sigmoid();
            Some(n.dy() * (&t + n.x(0) * s * (1.0 - t.square())))
        })
    }

    /// `log(1 + exp(beta x)) / beta`, and `x` itself where `beta x > threshold`.
    #[track_caller]
    pub fn softplus(&self, beta: f32, threshold: f32) -> Tensor {
        self.unary("softplus", "softplus({0}, {a}, {b})", &[beta, threshold], |n, args| {
            let linear = n.x(0).gt_scalar(args[1] / args[0]);
            let ones = n.x(0).ones_like();
            Some(n.dy() * linear.where_(&ones, &(n.x(0) * args[0]).sigmoid()))
        })
    }

    /// `x / (1 + |x|)`.
    #[track_caller]
    pub fn softsign(&self) -> Tensor {
        self.unary("softsign", "({0} / (1.0 + abs({0})))", &[], |n, _| Some(n.dy() / (1.0 + n.x(0).abs()).square()))
    }

    /// `min(max(x / 6 + 1/2, 0), 1)`.
    #[track_caller]
    pub fn hardsigmoid(&self) -> Tensor {
        self.unary("hardsigmoid", "clamp_({0} / 6.0 + 0.5, 0.0, 1.0)", &[], |n, _| {
            let inside = n.x(0).gt_scalar(-3.0) * n.x(0).lt_scalar(3.0);
            Some(n.dy() * inside * (1.0 / 6.0))
        })
    }

    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    #[track_caller]
    pub fn hardswish(&self) -> Tensor {
        self.unary("hardswish", "({0} * clamp_({0} / 6.0 + 0.5, 0.0, 1.0))", &[], |n, _| {
            let x = n.x(0);
            let inside = x.ge_scalar(-3.0) * x.le_scalar(3.0);
            Some(n.dy() * (inside * (x / 3.0 + 0.5) + x.gt_scalar(3.0)))
        })
    }

    /// `1 / (1 + exp(-x))`.
    #[track_caller]
    pub fn sigmoid(&self) -> Tensor {
        self.unary("sigmoid", "sigmoid({0})", &[], |n, _| {
            let y = &n.outputs[0];
            Some(n.dy() * (y * (1.0 - y)))
        })
    }

    /// Hyperbolic tangent.
    #[track_caller]
    pub fn tanh(&self) -> Tensor {
        self.unary("tanh", "tanh_({0})", &[], |n, _| Some(n.dy() * (1.0 - n.outputs[0].square())))
    }

    /// `log(sigmoid(x))`.
    #[track_caller]
    pub fn logsigmoid(&self) -> Tensor {
        self.unary("logsigmoid", "log_sigmoid({0})", &[], |n, _| Some(n.dy() * (-n.x(0)).sigmoid()))
    }

    /// `x - tanh(x)`.
    #[track_caller]
    pub fn tanhshrink(&self) -> Tensor {
        self.unary("tanhshrink", "({0} - tanh_({0}))", &[], |n, _| Some(n.dy() * n.x(0).tanh().square()))
    }

    /// Exponential function; saturates at the largest finite f32.
    #[track_caller]
    pub fn exp(&self) -> Tensor {
        self.unary("exp", "exp_({0})", &[], |n, _| Some(n.dy() * &n.outputs[0]))
    }

    /// `exp(x) - 1`, accurate near 0.
    #[track_caller]
    pub fn expm1(&self) -> Tensor {
        self.unary("expm1", "expm1_({0})", &[], |n, _| Some(n.dy() * (&n.outputs[0] + 1.0)))
    }

    /// Natural logarithm.
    #[track_caller]
    pub fn log(&self) -> Tensor {
        self.unary("log", "log_({0})", &[], |n, _| Some(n.dy() / n.x(0)))
    }

    /// `log(1 + x)`, accurate near 0.
    #[track_caller]
    pub fn log1p(&self) -> Tensor {
        self.unary("log1p", "log1p_({0})", &[], |n, _| Some(n.dy() / (n.x(0) + 1.0)))
    }

    /// Square root.
    #[track_caller]
    pub fn sqrt(&self) -> Tensor {
        self.unary("sqrt", "sqrt({0})", &[], |n, _| Some(n.dy() * 0.5 / &n.outputs[0]))
    }

    /// The square root of a sum of squares, whose gradient at 0 is 0, as PyTorch has it for norms.
    #[track_caller]
    pub(super) fn root(&self) -> Tensor {
        self.unary("sqrt", "sqrt({0})", &[], |n, _| Some(n.dy() * n.outputs[0].half_reciprocal()))
    }

    /// `0.5 / x`, but 0 at 0.
    fn half_reciprocal(&self) -> Tensor {
        let expr = "select(0.5 / {0}, 0.0, {0} == 0.0)";
        self.unary("half_reciprocal", expr, &[], |n, _| Some(n.dy() * (n.outputs[0].square() * -2.0)))
    }

    /// `x` where it is finite, else 0; no gradient flows.
    pub(super) fn finite_or_zero(&self) -> Tensor {
        self.unary("finite_or_zero", "select(0.0, {0}, abs({0}) <= 3.4028234663852886e38f)", &[], flat)
    }

    /// `1 / sqrt(x)`.
    #[track_caller]
    pub fn rsqrt(&self) -> Tensor {
        self.unary("rsqrt", "inverseSqrt({0})", &[], |n, _| Some(n.dy() * -0.5 * &n.outputs[0] / n.x(0)))
    }

    /// `1 / x`.
    #[track_caller]
    pub fn reciprocal(&self) -> Tensor {
        self.unary("reciprocal", "(1.0 / {0})", &[], |n, _| Some(-(n.dy() * n.outputs[0].square())))
    }

    /// `x^2`.
    #[track_caller]
    pub fn square(&self) -> Tensor {
        self.unary("square", "({0} * {0})", &[], |n, _| Some(n.dy() * (n.x(0) * 2.0)))
    }

    /// `x^exponent`; a negative `x` needs a whole exponent.
    #[track_caller]
    pub fn pow_scalar(&self, exponent: f32) -> Tensor {
        self.unary("pow_scalar", "pow_({0}, {a})", &[exponent], |n, args| {
            // Where x is 0, x^-1 is infinite.
            (args[0] != 0.0).then(|| n.dy() * (n.x(0).pow_scalar(args[0] - 1.0) * args[0]))
        })
    }

    /// Absolute value; the gradient at 0 is 0.
    #[track_caller]
    pub fn abs(&self) -> Tensor {
        self.unary("abs", "abs({0})", &[], |n, _| Some(n.dy() * n.x(0).sign()))
    }

    /// -1, 0 or 1.
    #[track_caller]
    pub fn sign(&self) -> Tensor {
        self.unary("sign", "sign({0})", &[], flat)
    }

    /// `-x`.
    #[track_caller]
    pub fn neg(&self) -> Tensor {
        self.unary("neg", "(-{0})", &[], |n, _| Some(-n.dy()))
    }

    /// Error function.
    #[track_caller]
    pub fn erf(&self) -> Tensor {
        self.unary("erf", "erf({0})", &[], |n, _| {
            Some(n.dy() * ((-n.x(0).square()).exp() * std::f32::consts::FRAC_2_SQRT_PI))
        })
    }

    /// Sine (radians), to 1e-7 up to 10,000 and to 1e-6 up to 100,000.
    #[track_caller]
    pub fn sin(&self) -> Tensor {
        self.unary("sin", "sin_({0})", &[], |n, _| Some(n.dy() * n.x(0).cos()))
    }

    /// Cosine (radians), to 1e-7 up to 10,000 and to 1e-6 up to 100,000.
    #[track_caller]
    pub fn cos(&self) -> Tensor {
        self.unary("cos", "cos_({0})", &[], |n, _| Some(-(n.dy() * n.x(0).sin())))
    }

    /// The largest whole number not above `x`.
    #[track_caller]
    pub fn floor(&self) -> Tensor {
        self.unary("floor", "floor({0})", &[], flat)
    }

    /// The smallest whole number not below `x`.
    #[track_caller]
    pub fn ceil(&self) -> Tensor {
        self.unary("ceil", "ceil({0})", &[], flat)
    }

    /// The nearest whole number, halves to even.
    #[track_caller]
    pub fn round(&self) -> Tensor {
        self.unary("round", "round({0})", &[], flat)
    }

    /// 1 where `x > bound`, else 0.
    #[track_caller]
    pub fn gt_scalar(&self, bound: f32) -> Tensor {
        self.unary("gt", "select(0.0, 1.0, {0} > {a})", &[bound], flat)
    }

    /// 1 where `x >= bound`, else 0.
    #[track_caller]
    pub fn ge_scalar(&self, bound: f32) -> Tensor {
        self.unary("ge", "select(0.0, 1.0, {0} >= {a})", &[bound], flat)
    }

    /// 1 where `x < bound`, else 0.
    #[track_caller]
    pub fn lt_scalar(&self, bound: f32) -> Tensor {
        self.unary("lt", "select(0.0, 1.0, {0} < {a})", &[bound], flat)
    }

    /// 1 where `x <= bound`, else 0.
    #[track_caller]
    pub fn le_scalar(&self, bound: f32) -> Tensor {
        self.unary("le", "select(0.0, 1.0, {0} <= {a})", &[bound], flat)
    }

    /// Gated linear unit (Dauphin et al., 2017): the first half along `dim` times the sigmoid of the second.
    #[track_caller]
    pub fn glu(&self, dim: isize) -> Tensor {
        let halves = match self.desc().shape.axis(dim) {
            Ok(axis) if self.shape()[axis].is_multiple_of(2) => self.shape()[axis] / 2,
            Ok(axis) => return self.graph().poison("glu", format!("the extent {} is odd", self.shape()[axis])),
            Err(message) => return self.graph().poison("glu", message),
        };
        self.narrow(dim, 0, halves) * self.narrow(dim, halves, halves).sigmoid()
    }
}
