//! Element-wise functions of two or three tensors, with NumPy's broadcasting, and the operators.

use crate::graph::{Backward, Candidate, Caps, DType, Desc, Io, Op, Pointwise, Shape, Tensor, float};
use std::ops::{Add, Div, Mul, Neg, Sub};

type Rule = fn(&Backward<'_>) -> Vec<Option<Tensor>>;

/// A function of several operands of one type; comparisons give f32.
struct Elementwise {
    name: &'static str,
    expr: &'static str,
    comparison: bool,
    rule: Rule,
}

impl std::fmt::Debug for Elementwise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Op for Elementwise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        // The operands whose types must agree: all, but for the mask of `where`.
        let typed = &inputs[inputs.len() - 2..];
        if typed[0].dtype != typed[1].dtype {
            return Err(format!("the operands are {} and {}; use cast", typed[0], typed[1]));
        }
        if inputs.len() == 3 && inputs[0].dtype != DType::F32 {
            return Err(format!("the mask is {}, not f32", inputs[0]));
        }
        let mut shape = inputs[0].shape.clone();
        for input in &inputs[1..] {
            shape = shape
                .broadcast(&input.shape)
                .ok_or_else(|| format!("the shapes {shape} and {} do not broadcast", input.shape))?;
        }
        let dtype = if self.comparison { DType::F32 } else { typed[0].dtype };
        Ok(vec![Desc::new(shape, dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let grads = (self.rule)(node);
        grads.into_iter().zip(node.inputs).map(|(grad, x)| grad.map(|g| g.sum_to(&x.desc().shape))).collect()
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise(self.expr.into()))
    }
}

/// The same value everywhere.
#[derive(Debug)]
struct Full {
    shape: Shape,
    dtype: DType,
    literal: String,
}

impl Op for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn outputs(&self, _inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::new(&self.shape, self.dtype)])
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(Pointwise(self.literal.clone()))
    }
}

fn flat(_: &Backward<'_>) -> Vec<Option<Tensor>> {
    Vec::new()
}

impl crate::Graph {
    /// An f32 tensor of this shape with `value` everywhere; it costs no memory where it is only read by other ops.
    #[track_caller]
    pub fn full(&self, shape: impl Into<Shape>, value: f32) -> Tensor {
        self.push1(Full { shape: shape.into(), dtype: DType::F32, literal: float(value) }, &[])
    }

    /// [`crate::Graph::full`] for u32.
    #[track_caller]
    pub fn full_u32(&self, shape: impl Into<Shape>, value: u32) -> Tensor {
        self.push1(Full { shape: shape.into(), dtype: DType::U32, literal: format!("{value}u") }, &[])
    }
}

impl Tensor {
    #[track_caller]
    pub(crate) fn elementwise(&self, name: &'static str, expr: &'static str, other: &Tensor, rule: Rule) -> Tensor {
        self.graph().push1(Elementwise { name, expr, comparison: false, rule }, &[self, other])
    }

    #[track_caller]
    fn compare(&self, name: &'static str, expr: &'static str, other: &Tensor) -> Tensor {
        self.graph().push1(Elementwise { name, expr, comparison: true, rule: flat }, &[self, other])
    }

    /// This shape, `value` everywhere.
    #[track_caller]
    pub fn full_like(&self, value: f32) -> Tensor {
        self.graph().full(&self.desc().shape, value)
    }

    /// This shape, zeros.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        self.full_like(0.0)
    }

    /// This shape, ones.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        self.full_like(1.0)
    }

    /// The larger of the two; where they are equal each gets half of the gradient, as in PyTorch.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        self.elementwise("maximum", "max_({0}, {1})", other, |n| share(n, n.x(0).gt(n.x(1))))
    }

    /// The smaller of the two; where they are equal each gets half of the gradient.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        self.elementwise("minimum", "min_({0}, {1})", other, |n| share(n, n.x(0).lt(n.x(1))))
    }

    /// `self` to the power `other`; a negative base needs a whole exponent.
    #[track_caller]
    pub fn pow(&self, other: &Tensor) -> Tensor {
        self.elementwise("pow", "pow_({0}, {1})", other, |n| {
            let (a, b) = (n.x(0), n.x(1));
            // Of x^0 the gradient is 0, also where x is 0 and x^-1 infinite.
            let da = n.dy() * (b * a.pow(&(b - 1.0 + b.eq(&b.zeros_like()))));
            let db = n.dy() * (&n.outputs[0] * a.maximum(&a.full_like(f32::MIN_POSITIVE)).log());
            vec![Some(da), Some(db)]
        })
    }

    /// 1 where `self > other`, else 0.
    #[track_caller]
    pub fn gt(&self, other: &Tensor) -> Tensor {
        self.compare("gt", "select(0.0, 1.0, {0} > {1})", other)
    }

    /// 1 where `self < other`, else 0.
    #[track_caller]
    pub fn lt(&self, other: &Tensor) -> Tensor {
        self.compare("lt", "select(0.0, 1.0, {0} < {1})", other)
    }

    /// 1 where the two are equal, else 0.
    #[track_caller]
    pub fn eq(&self, other: &Tensor) -> Tensor {
        self.compare("eq", "select(0.0, 1.0, {0} == {1})", other)
    }

    /// `a` where this f32 mask is not 0, else `b`.
    #[track_caller]
    pub fn where_(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let op = Elementwise {
            name: "where",
            expr: "select({2}, {1}, {0} != 0.0)",
            comparison: false,
            rule: |n| {
                let zero = n.dy().zeros_like();
                vec![None, Some(n.x(0).where_(&n.dy(), &zero)), Some(n.x(0).where_(&zero, &n.dy()))]
            },
        };
        self.graph().push1(op, &[self, a, b])
    }

    /// `x` where positive, else `weight * x` (He et al., 2015); `weight` has one element, or one per channel (axis 1).
    #[track_caller]
    pub fn prelu(&self, weight: &Tensor) -> Tensor {
        let weight = if weight.elements() == 1 || self.rank() < 2 {
            weight.reshape([weight.elements()])
        } else {
            let mut shape = vec![1; self.rank() - 1];
            shape[0] = weight.elements();
            weight.reshape(shape)
        };
        self.gt_scalar(0.0).where_(self, &(self * weight))
    }

    /// The sum over the axes along which `shape` was stretched to this tensor's shape.
    #[track_caller]
    pub fn sum_to(&self, shape: &Shape) -> Tensor {
        if self.desc().shape == *shape || self.graph().failed() {
            return self.clone();
        }
        let lead = self.rank() - shape.len();
        let stretched = |&axis: &usize| axis < lead || (shape[axis - lead] == 1 && self.shape()[axis] != 1);
        let dims: Vec<isize> = (0..self.rank()).filter(stretched).map(|axis| axis as isize).collect();
        let summed = if dims.is_empty() { self.clone() } else { self.sum(&dims, true) };
        summed.reshape(shape)
    }
}

/// Gives the gradient to the first operand where `first`, to the second elsewhere, and half to each at equality.
fn share(node: &Backward<'_>, first: Tensor) -> Vec<Option<Tensor>> {
    let equal = node.x(0).eq(node.x(1)) * 0.5;
    let a = node.dy() * (&first + &equal);
    let b = node.dy() * (1.0 - first - equal);
    vec![Some(a), Some(b)]
}

macro_rules! operator {
    ($trait:ident $method:ident $name:literal $expr:literal $rule:expr) => {
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.elementwise($name, $expr, other, $rule)
            }
        }
        impl $trait<Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.$method(&other)
            }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                (&self).$method(other)
            }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                (&self).$method(&other)
            }
        }
        impl $trait<f32> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: f32) -> Tensor {
                let other = self.graph().full([], other);
                self.$method(&other)
            }
        }
        impl $trait<f32> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: f32) -> Tensor {
                (&self).$method(other)
            }
        }
        impl $trait<&Tensor> for f32 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                other.graph().full([], self).$method(other)
            }
        }
        impl $trait<Tensor> for f32 {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.$method(&other)
            }
        }
    };
}

operator!(Add add "add" "({0} + {1})" |n| vec![Some(n.dy()), Some(n.dy())]);
operator!(Sub sub "sub" "({0} - {1})" |n| vec![Some(n.dy()), Some(-n.dy())]);
operator!(Mul mul "mul" "({0} * {1})" |n| vec![Some(n.dy() * n.x(1)), Some(n.dy() * n.x(0))]);
operator!(Div div "div" "({0} / {1})" |n| {
    let da = n.dy() / n.x(1);
    let db = -(&da * &n.outputs[0]);
    vec![Some(da), Some(db)]
});

impl Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

impl Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}
