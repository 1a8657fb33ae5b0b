//! Index rules: which element a rearranged or broadcast operand reads for output element `i`.

use super::{Shape, View};

impl View {
    /// The rule by which an operand of `shape` is stretched to `out` (which it must broadcast to).
    pub fn broadcast(shape: &Shape, out: &Shape) -> View {
        let lead = out.len() - shape.len();
        let dense = shape.strides();
        let strides = (0..out.len())
            .map(|axis| match axis.checked_sub(lead) {
                Some(own) if shape[own] != 1 => dense[own] as isize,
                _ => 0,
            })
            .collect();
        View { shape: out.to_vec(), strides, offset: 0 }
    }

    /// Whether element `i` is simply element `i`.
    pub fn is_identity(&self) -> bool {
        let dense = Shape::from(self.shape.as_slice()).strides();
        self.offset == 0
            && self.strides.iter().zip(&dense).zip(&self.shape).all(|((s, d), n)| *n == 1 || *s == *d as isize)
    }

    /// The same rule with as few axes as possible: extents of 1 dropped, axes that run on merged.
    pub(crate) fn merged(&self) -> Vec<(usize, isize)> {
        let mut axes: Vec<(usize, isize)> = Vec::new();
        for (&extent, &stride) in self.shape.iter().zip(&self.strides) {
            match axes.last_mut() {
                _ if extent == 1 => {}
                Some(last) if last.1 == stride * extent as isize => *last = (last.0 * extent, stride),
                _ => axes.push((extent, stride)),
            }
        }
        axes
    }

    /// Whether elements `width q` to `width q + width - 1` are always neighbours that begin at a multiple of `width`, given
    /// that what is added to the rule is one.
    pub(crate) fn in_parts(&self, width: usize) -> bool {
        let axes = self.merged();
        axes.last().is_some_and(|&(extent, stride)| stride == 1 && extent.is_multiple_of(width))
            && self.offset.is_multiple_of(width)
            && axes[..axes.len() - 1].iter().all(|(_, stride)| stride.unsigned_abs().is_multiple_of(width))
    }

    /// Whether every element's place is a multiple of `width`.
    pub(crate) fn keeps_parts(&self, width: usize) -> bool {
        self.offset.is_multiple_of(width)
            && self.merged().iter().all(|(_, stride)| stride.unsigned_abs().is_multiple_of(width))
    }

    /// This rule behind another one, as one: `None` where that is not affine. Shapes may differ in between.
    pub(crate) fn behind(&self, below: &View) -> Option<View> {
        let dense = Shape::from(below.shape.as_slice()).strides();
        let axes: Vec<usize> = (0..dense.len()).filter(|&axis| below.shape[axis] > 1).collect();
        if self.shape.contains(&0) || below.shape.contains(&0) {
            return None;
        }
        // The coordinates of the first element that is read, and how far the others reach around them.
        let first = |axis: usize| (self.offset / dense[axis] % below.shape[axis]) as isize;
        let mut reach: Vec<(isize, isize)> = (0..dense.len()).map(|axis| (first(axis), first(axis))).collect();
        let mut strides = Vec::new();
        for (&extent, &stride) in self.shape.iter().zip(&self.strides) {
            if extent == 1 || stride == 0 {
                strides.push(0);
                continue;
            }
            let axis = *axes.iter().find(|&&axis| dense[axis] <= stride.unsigned_abs())?;
            let (step, 0) = (stride / dense[axis] as isize, stride % dense[axis] as isize) else { return None };
            let far = step * (extent as isize - 1);
            reach[axis] = (reach[axis].0 + far.min(0), reach[axis].1 + far.max(0));
            strides.push(step * below.strides[axis]);
        }
        let within = axes.iter().all(|&axis| reach[axis].0 >= 0 && reach[axis].1 < below.shape[axis] as isize);
        let offset = (0..dense.len()).map(|axis| first(axis) * below.strides[axis]).sum::<isize>();
        let offset = below.offset.checked_add_signed(offset)?;
        within.then(|| View { shape: self.shape.clone(), strides, offset })
    }

    /// The rule as a WGSL expression of the u32 expression `i`.
    pub fn wgsl(&self, i: &str) -> String {
        let axes = self.merged();
        let mut terms = Vec::new();
        if self.offset != 0 {
            terms.push(format!("{}u", self.offset));
        }
        let mut inner = 1;
        for (place, &(extent, stride)) in axes.iter().enumerate().rev() {
            if stride != 0 {
                let divided = if inner == 1 { i.to_string() } else { format!("{i} / {inner}u") };
                // The outermost coordinate needs no remainder: `i` is within the output.
                let coordinate = if place == 0 { divided } else { format!("({divided}) % {}u", extent.max(1)) };
                // Negative strides wrap around, as u32 arithmetic does.
                let stride = stride as i32 as u32;
                terms.push(if stride == 1 { format!("({coordinate})") } else { format!("({coordinate}) * {stride}u") });
            }
            inner *= extent.max(1);
        }
        if terms.is_empty() { "0u".into() } else { terms.join(" + ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_bias_needs_one_division_and_one_remainder() {
        let view = View::broadcast(&Shape::from([32, 1, 1]), &Shape::from([8, 32, 14, 14]));
        assert_eq!(view.wgsl("i"), "((i / 196u) % 32u)");
        assert!(!view.is_identity());
    }

    #[test]
    fn scalars_and_whole_tensors_are_simple() {
        let shape = Shape::from([4, 5]);
        assert_eq!(View::broadcast(&Shape::from([]), &shape).wgsl("i"), "0u");
        assert_eq!(View::broadcast(&shape, &shape).wgsl("i"), "(i)");
        assert!(View::broadcast(&shape, &shape).is_identity());
        let rows = View::broadcast(&Shape::from([4, 1]), &shape);
        assert_eq!(rows.wgsl("i"), "(i / 5u)");
    }

    #[test]
    fn rules_in_a_row_are_one_where_they_are_affine() {
        // The last two columns of three, transposed; then the second row of that, backwards.
        let columns = View { shape: vec![2, 4], strides: vec![1, 3], offset: 1 };
        let row = View { shape: vec![4], strides: vec![-1], offset: 7 };
        assert_eq!(row.behind(&columns), Some(View { shape: vec![4], strides: vec![-3], offset: 11 }));
        // Both rows as one.
        let all = View { shape: vec![8], strides: vec![1], offset: 0 };
        assert_eq!(all.behind(&columns), None);
        let pairs = View { shape: vec![2, 2, 2], strides: vec![4, 2, 1], offset: 0 };
        assert_eq!(pairs.behind(&columns), Some(View { shape: vec![2, 2, 2], strides: vec![1, 6, 3], offset: 1 }));
    }

    #[test]
    fn reversed_axes_wrap_around() {
        let view = View { shape: vec![3], strides: vec![-1], offset: 2 };
        assert_eq!(view.wgsl("i"), "2u + (i) * 4294967295u");
    }
}
