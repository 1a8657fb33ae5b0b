//! The optimizers and their hyper-parameters, with PyTorch's names and defaults.

/// Which formula a step follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Sgd { nesterov: bool },
    Adam { decoupled: bool, amsgrad: bool },
    RmsProp { centered: bool },
    Adagrad,
}

/// How gradients are limited before a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Clip {
    None,
    Norm(f64),
    Value(f64),
}

impl Clip {
    pub(super) fn limit(self) -> f64 {
        match self {
            Clip::None => 0.0,
            Clip::Norm(limit) | Clip::Value(limit) => limit,
        }
    }
}

/// Any optimizer, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub(super) kind: Kind,
    pub(super) clip: Clip,
    pub(super) lr: f64,
    /// SGD's momentum, Adam's first beta, RMSprop's alpha.
    pub(super) beta1: f64,
    /// SGD's dampening, Adam's second beta, RMSprop's momentum.
    pub(super) beta2: f64,
    pub(super) eps: f64,
    pub(super) weight_decay: f64,
    pub(super) lr_decay: f64,
    pub(super) initial: f64,
}

impl Optimizer {
    fn new(kind: Kind, lr: f64) -> Self {
        Optimizer {
            kind,
            clip: Clip::None,
            lr,
            beta1: 0.0,
            beta2: 0.0,
            eps: 1e-8,
            weight_decay: 0.0,
            lr_decay: 0.0,
            initial: 0.0,
        }
    }

    /// Scales all gradients so that the norm of them all together is at most `limit`, as PyTorch's `clip_grad_norm_`.
    pub fn clip_norm(mut self, limit: f64) -> Self {
        self.clip = Clip::Norm(limit);
        self
    }

    /// Limits every element of the gradients to `-limit..=limit`.
    pub fn clip_value(mut self, limit: f64) -> Self {
        self.clip = Clip::Value(limit);
        self
    }

    /// What is wrong with the hyper-parameters, by PyTorch's rules.
    pub(super) fn check(&self) -> Result<(), String> {
        // Names of the two numbers that kinds share, and what they must be below.
        let most = f64::from(f32::MAX);
        let [(first, first_most), (second, second_most)] = match self.kind {
            Kind::Sgd { .. } => [("momentum", most), ("dampening", most)],
            Kind::Adam { .. } => [("beta1", 1.0), ("beta2", 1.0)],
            Kind::RmsProp { .. } => [("alpha", 1.0), ("momentum", most)],
            Kind::Adagrad => [("", most); 2],
        };
        let all = [
            ("lr", self.lr, most),
            (first, self.beta1, first_most),
            (second, self.beta2, second_most),
            ("eps", self.eps, most),
            ("weight_decay", self.weight_decay, most),
            ("lr_decay", self.lr_decay, most),
            ("initial_accumulator_value", self.initial, most),
            ("limit of the gradients", self.clip.limit(), most),
        ];
        if let Some((name, value, most)) = all.into_iter().find(|(_, value, most)| !(0.0..*most).contains(value)) {
            let bounds = if most == 1.0 { "from 0 to below 1" } else { "finite and not negative" };
            return Err(format!("the {name} is {value}, but must be {bounds}"));
        }
        if self.kind == (Kind::Sgd { nesterov: true }) && (self.beta1 == 0.0 || self.beta2 != 0.0) {
            return Err("nesterov needs a momentum above 0 and no dampening".into());
        }
        Ok(())
    }

    /// Moments kept for each element of a weight, by PyTorch's names.
    pub(super) fn moments(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Sgd { .. } if self.beta1 == 0.0 => vec![],
            Kind::Sgd { .. } => vec!["momentum_buffer"],
            Kind::Adam { amsgrad: false, .. } => vec!["exp_avg", "exp_avg_sq"],
            Kind::Adam { amsgrad: true, .. } => vec!["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
            Kind::RmsProp { centered: false } if self.beta2 == 0.0 => vec!["square_avg"],
            Kind::RmsProp { .. } => vec!["square_avg", "grad_avg", "momentum_buffer"],
            Kind::Adagrad => vec!["sum"],
        }
    }
}

macro_rules! optimizer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(Optimizer);

        impl From<$name> for Optimizer {
            fn from(optimizer: $name) -> Optimizer {
                optimizer.0
            }
        }

        impl $name {
            /// The factor of the weights that is added to their gradients (AdamW: taken off the weights themselves).
            pub fn weight_decay(mut self, decay: f64) -> Self {
                self.0.weight_decay = decay;
                self
            }

            /// See [`Optimizer::clip_norm`].
            pub fn clip_norm(mut self, limit: f64) -> Self {
                self.0 = self.0.clip_norm(limit);
                self
            }

            /// See [`Optimizer::clip_value`].
            pub fn clip_value(mut self, limit: f64) -> Self {
                self.0 = self.0.clip_value(limit);
                self
            }
        }
    };
}

optimizer! {
    /// Stochastic gradient descent, with momentum as PyTorch has it (Sutskever et al., 2013).
    Sgd
}

impl Sgd {
    /// Plain descent at this rate.
    pub fn new(lr: f64) -> Self {
        Sgd(Optimizer::new(Kind::Sgd { nesterov: false }, lr))
    }

    /// Keeps `momentum` of the former step's direction.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.0.beta1 = momentum;
        self
    }

    /// Takes `1 - dampening` of the gradient into the momentum.
    pub fn dampening(mut self, dampening: f64) -> Self {
        self.0.beta2 = dampening;
        self
    }

    /// Looks ahead along the momentum (Nesterov).
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.0.kind = Kind::Sgd { nesterov };
        self
    }
}

optimizer! {
    /// Adam (Kingma and Ba, 2014).
    Adam
}

impl Adam {
    /// Betas 0.9 and 0.999, eps 1e-8.
    pub fn new(lr: f64) -> Self {
        let kind = Kind::Adam { decoupled: false, amsgrad: false };
        Adam(Optimizer { beta1: 0.9, beta2: 0.999, ..Optimizer::new(kind, lr) })
    }

    /// How much of the first and second moments a step keeps.
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.0.beta1, self.0.beta2) = (beta1, beta2);
        self
    }

    /// Added to the root of the second moment.
    pub fn eps(mut self, eps: f64) -> Self {
        self.0.eps = eps;
        self
    }

    /// Divides by the largest second moment so far (Reddi et al., 2018).
    pub fn amsgrad(mut self, amsgrad: bool) -> Self {
        self.0.kind = Kind::Adam { decoupled: false, amsgrad };
        self
    }
}

optimizer! {
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2017).
    AdamW
}

impl AdamW {
    /// Betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.
    pub fn new(lr: f64) -> Self {
        let kind = Kind::Adam { decoupled: true, amsgrad: false };
        AdamW(Optimizer { beta1: 0.9, beta2: 0.999, weight_decay: 0.01, ..Optimizer::new(kind, lr) })
    }

    /// How much of the first and second moments a step keeps.
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.0.beta1, self.0.beta2) = (beta1, beta2);
        self
    }

    /// Added to the root of the second moment.
    pub fn eps(mut self, eps: f64) -> Self {
        self.0.eps = eps;
        self
    }

    /// Divides by the largest second moment so far.
    pub fn amsgrad(mut self, amsgrad: bool) -> Self {
        self.0.kind = Kind::Adam { decoupled: true, amsgrad };
        self
    }
}

optimizer! {
    /// RMSprop (Hinton, lecture 6e of "Neural Networks for Machine Learning", 2012).
    RmsProp
}

impl RmsProp {
    /// Alpha 0.99, eps 1e-8.
    pub fn new(lr: f64) -> Self {
        RmsProp(Optimizer { beta1: 0.99, ..Optimizer::new(Kind::RmsProp { centered: false }, lr) })
    }

    /// How much of the mean square a step keeps.
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.0.beta1 = alpha;
        self
    }

    /// Added to the root of the mean square.
    pub fn eps(mut self, eps: f64) -> Self {
        self.0.eps = eps;
        self
    }

    /// Keeps `momentum` of the former step.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.0.beta2 = momentum;
        self
    }

    /// Divides by the variance instead of the mean square.
    pub fn centered(mut self, centered: bool) -> Self {
        self.0.kind = Kind::RmsProp { centered };
        self
    }
}

optimizer! {
    /// Adagrad (Duchi et al., 2011).
    Adagrad
}

impl Adagrad {
    /// Eps 1e-10.
    pub fn new(lr: f64) -> Self {
        Adagrad(Optimizer { eps: 1e-10, ..Optimizer::new(Kind::Adagrad, lr) })
    }

    /// The rate at step t (from 0) is `lr / (1 + t lr_decay)`.
    pub fn lr_decay(mut self, decay: f64) -> Self {
        self.0.lr_decay = decay;
        self
    }

    /// What the sums of squares start from.
    pub fn initial_accumulator_value(mut self, value: f64) -> Self {
        self.0.initial = value;
        self
    }

    /// Added to the root of the sum.
    pub fn eps(mut self, eps: f64) -> Self {
        self.0.eps = eps;
        self
    }
}
