//! Reshapes, which cost nothing, and rearrangements, which are index rules that other kernels read through.

use crate::graph::{Backward, Candidate, Caps, Desc, Io, Op, Shape, Tensor, View};

/// The same memory under another shape.
#[derive(Debug)]
struct Reshape(Shape);

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        if inputs[0].elements() != self.0.elements() {
            return Err(format!(
                "{} has {} elements, {} has {}",
                inputs[0],
                inputs[0].elements(),
                self.0,
                self.0.elements()
            ));
        }
        Ok(vec![Desc::new(&self.0, inputs[0].dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![Some(node.dy().reshape(node.x(0).shape()))]
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn alias(&self) -> bool {
        true
    }
}

/// How a [`Rearrange`] undoes itself for the gradient.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Permute(Vec<usize>),
    /// Start and step (which may be negative) along each axis.
    Slice(Vec<(usize, isize)>),
    Expand,
}

/// Output element `i` is input element `view(i)`.
#[derive(Debug)]
struct Rearrange {
    kind: Kind,
    view: View,
}

impl Op for Rearrange {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Permute(_) => "permute",
            Kind::Slice(_) => "slice",
            Kind::Expand => "expand",
        }
    }

    fn outputs(&self, inputs: &[Desc]) -> Result<Vec<Desc>, String> {
        Ok(vec![Desc::new(self.view.shape.as_slice(), inputs[0].dtype)])
    }

    fn grad(&self, node: &Backward<'_>) -> Vec<Option<Tensor>> {
        let dy = node.dy();
        vec![Some(match &self.kind {
            Kind::Permute(dims) => {
                let mut back = vec![0; dims.len()];
                dims.iter().enumerate().for_each(|(to, &from)| back[from] = to as isize);
                dy.permute(&back)
            }
            Kind::Slice(starts) => dy.spread(node.x(0).shape(), starts),
            Kind::Expand => dy.sum_to(&node.x(0).desc().shape),
        })]
    }

    fn candidates(&self, _io: &Io<'_>, _caps: &Caps) -> Vec<Candidate> {
        Vec::new()
    }

    fn view(&self, _input: &Desc) -> Option<View> {
        Some(self.view.clone())
    }
}

impl Tensor {
    /// The same elements in the same order under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if shape == self.desc().shape { self.clone() } else { self.graph().push1(Reshape(shape), &[self]) }
    }

    /// All axes from `start` on as one.
    #[track_caller]
    pub fn flatten(&self, start: usize) -> Tensor {
        let start = start.min(self.rank());
        let mut shape = self.shape()[..start].to_vec();
        shape.push(self.shape()[start..].iter().product());
        self.reshape(shape)
    }

    /// A new axis of extent 1 at place `dim` (negative: from the end, -1 the last).
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Tensor {
        let place = if dim < 0 { dim + self.rank() as isize + 1 } else { dim };
        if !(0..=self.rank() as isize).contains(&place) {
            return self
                .graph()
                .poison("unsqueeze", format!("dim {dim} is out of range for the shape {}", self.desc().shape));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(place as usize, 1);
        self.reshape(shape)
    }

    /// Without the axis `dim`, which must have extent 1.
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) if self.shape()[axis] == 1 => {
                let mut shape = self.shape().to_vec();
                shape.remove(axis);
                self.reshape(shape)
            }
            Ok(axis) => {
                self.graph().poison("squeeze", format!("dim {dim} of {} is {}, not 1", self.desc(), self.shape()[axis]))
            }
            Err(message) => self.graph().poison("squeeze", message),
        }
    }

    #[track_caller]
    fn rearrange(&self, kind: Kind, shape: Vec<usize>, strides: Vec<isize>, offset: usize) -> Tensor {
        self.graph().push1(Rearrange { kind, view: View { shape, strides, offset } }, &[self])
    }

    /// The axes in another order: output axis `a` is this tensor's axis `dims[a]`.
    #[track_caller]
    pub fn permute(&self, dims: &[isize]) -> Tensor {
        let axes: Result<Vec<usize>, String> = dims.iter().map(|&d| self.desc().shape.axis(d)).collect();
        let axes = match axes {
            Ok(axes) => axes,
            Err(message) => return self.graph().poison("permute", message),
        };
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if sorted != (0..self.rank()).collect::<Vec<_>>() {
            return self.graph().poison("permute", format!("{dims:?} is no order of the axes of {}", self.desc()));
        }
        let own = self.desc().shape.strides();
        let shape = axes.iter().map(|&a| self.shape()[a]).collect();
        let strides = axes.iter().map(|&a| own[a] as isize).collect();
        self.rearrange(Kind::Permute(axes), shape, strides, 0)
    }

    /// Two axes swapped.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        match (self.desc().shape.axis(a), self.desc().shape.axis(b)) {
            (Ok(a), Ok(b)) => {
                let mut dims: Vec<isize> = (0..self.rank() as isize).collect();
                dims.swap(a, b);
                self.permute(&dims)
            }
            (Err(message), _) | (_, Err(message)) => self.graph().poison("transpose", message),
        }
    }

    /// Along each axis: `(start, end, step)`, as `x[start:end:step]` in NumPy but for negative indices; axes without
    /// an entry stay whole. A negative step walks from `start` down to just above `end` (-1: to the very first).
    #[track_caller]
    pub fn slice(&self, ranges: &[(usize, isize, isize)]) -> Tensor {
        let own = self.desc().shape.strides();
        let (mut shape, mut strides, mut starts, mut offset) = (Vec::new(), Vec::new(), Vec::new(), 0);
        if ranges.len() > self.rank() {
            return self.graph().poison("slice", format!("{} ranges for {}", ranges.len(), self.desc()));
        }
        for (axis, &extent) in self.shape().iter().enumerate() {
            let (start, end, step) = ranges.get(axis).copied().unwrap_or((0, extent as isize, 1));
            let outside = start > extent || (step < 0 && (start >= extent || end < -1));
            let (from, to) = if step < 0 { (end, start as isize) } else { (start as isize, end.min(extent as isize)) };
            let span = to.saturating_sub(from);
            if step == 0 || span < 0 || outside {
                let message = format!("({start}, {end}, {step}) does not fit axis {axis} of {}", self.desc());
                return self.graph().poison("slice", message);
            }
            let count = (span as usize).div_ceil(step.unsigned_abs());
            // A single element needs no step, however long.
            let step = if count > 1 { step } else { step.signum() };
            shape.push(count);
            strides.push(own[axis] as isize * step);
            starts.push((start, step));
            offset += start * own[axis];
        }
        self.rearrange(Kind::Slice(starts), shape, strides, offset)
    }

    /// `length` elements from `start` on along `dim`.
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) if start.checked_add(length).is_some_and(|end| end <= self.shape()[axis]) => {
                let mut ranges: Vec<_> = self.shape()[..axis].iter().map(|&n| (0, n as isize, 1)).collect();
                ranges.push((start, (start + length) as isize, 1));
                self.slice(&ranges)
            }
            Ok(_) => {
                let message = format!("{length} elements from {start} on are not in dim {dim} of {}", self.desc());
                self.graph().poison("narrow", message)
            }
            Err(message) => self.graph().poison("narrow", message),
        }
    }

    /// The axis `dim` backwards.
    #[track_caller]
    pub fn flip(&self, dim: isize) -> Tensor {
        match self.desc().shape.axis(dim) {
            Ok(axis) if self.shape()[axis] > 0 => {
                let mut ranges: Vec<_> = self.shape()[..axis].iter().map(|&n| (0, n as isize, 1)).collect();
                ranges.push((self.shape()[axis] - 1, -1, -1));
                self.slice(&ranges)
            }
            Ok(_) => self.clone(),
            Err(message) => self.graph().poison("flip", message),
        }
    }

    /// Stretched to `shape` by NumPy's broadcasting.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        if shape == self.desc().shape {
            return self.clone();
        }
        if self.desc().shape.broadcast(&shape).as_ref() != Some(&shape) {
            return self.graph().poison("expand", format!("{} does not broadcast to {shape}", self.desc()));
        }
        let view = View::broadcast(&self.desc().shape, &shape);
        self.rearrange(Kind::Expand, view.shape, view.strides, 0)
    }
}
