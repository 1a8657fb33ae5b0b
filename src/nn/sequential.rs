//! Layers one after the other.

use super::{Module, prefixed};
use crate::graph::{Param, Tensor};

/// Modules applied in order. Their parameters are named by place (`0.weight`), or by a name of their own.
pub struct Sequential {
    layers: Vec<(String, Box<dyn Module + Send + Sync>)>,
}

/// A module, or `("name", module)`.
pub trait Layer {
    /// The name, if it has one of its own, and the module.
    fn layer(self) -> (Option<String>, Box<dyn Module + Send + Sync>);
}

impl<M: Module + Send + Sync + 'static> Layer for M {
    fn layer(self) -> (Option<String>, Box<dyn Module + Send + Sync>) {
        (None, Box::new(self))
    }
}

impl<M: Module + Send + Sync + 'static> Layer for (&str, M) {
    fn layer(self) -> (Option<String>, Box<dyn Module + Send + Sync>) {
        (Some(self.0.to_string()), Box::new(self.1))
    }
}

/// A tuple of [`Layer`]s.
pub trait Layers {
    /// Adds them in order.
    fn push_to(self, sequential: &mut Sequential);
}

macro_rules! tuples {
    ($($name:ident)+) => {
        impl<$($name: Layer),+> Layers for ($($name,)+) {
            #[allow(non_snake_case)]
            fn push_to(self, sequential: &mut Sequential) {
                let ($($name,)+) = self;
                $(sequential.push($name);)+
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
tuples!(A B C D E F G H I J K L M);
tuples!(A B C D E F G H I J K L M N);
tuples!(A B C D E F G H I J K L M N O);
tuples!(A B C D E F G H I J K L M N O P);

impl Sequential {
    /// Adds a layer at the end.
    pub fn push(&mut self, layer: impl Layer) {
        let (name, module) = layer.layer();
        let name = name.unwrap_or_else(|| self.layers.len().to_string());
        // Names the parameters for listings.
        prefixed(&name, module.as_ref());
        self.layers.push((name, module));
    }
}

/// The layers of a tuple (up to 16; [`Sequential::push`] adds more), one after the other.
pub fn sequential(layers: impl Layers) -> Sequential {
    let mut sequential = Sequential { layers: Vec::new() };
    layers.push_to(&mut sequential);
    sequential
}

impl Module for Sequential {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.clone();
        for (name, layer) in &self.layers {
            x = x.graph().part(&format!("layer {name}"), || layer.forward(&x));
        }
        x
    }

    fn parameters(&self) -> Vec<(String, Param)> {
        self.layers.iter().flat_map(|(name, layer)| prefixed(name, layer.as_ref())).collect()
    }
}
