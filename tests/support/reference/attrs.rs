//! Typed reading of a golden case's attributes. What is missing or of another type panics with the attribute's name.

use serde_json::Value;

use super::loss::Reduction;
use super::optim::{Optimizer, Rule, Schedule};

#[derive(Clone, Copy)]
pub struct Attrs<'a>(pub &'a Value);

impl Attrs<'_> {
    /// The attribute, unless it is missing or null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|v| !v.is_null())
    }

    pub fn f64(&self, name: &str) -> f64 {
        self.get(name).and_then(Value::as_f64).unwrap_or_else(|| self.bad(name))
    }

    pub fn f64_or(&self, name: &str, default: f64) -> f64 {
        if self.get(name).is_some() { self.f64(name) } else { default }
    }

    pub fn i64(&self, name: &str) -> i64 {
        self.get(name).and_then(Value::as_i64).unwrap_or_else(|| self.bad(name))
    }

    pub fn usize(&self, name: &str) -> usize {
        usize::try_from(self.i64(name)).unwrap_or_else(|_| self.bad(name))
    }

    pub fn bool(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_else(|| self.bad(name))
    }

    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() { self.bool(name) } else { default }
    }

    pub fn str_or<'b>(&'b self, name: &str, default: &'b str) -> &'b str {
        self.get(name).map_or(default, |v| v.as_str().unwrap_or_else(|| self.bad(name)))
    }

    pub fn ints(&self, name: &str) -> Vec<i64> {
        let list = self.get(name).and_then(Value::as_array).unwrap_or_else(|| self.bad(name));
        list.iter().map(|v| v.as_i64().unwrap_or_else(|| self.bad(name))).collect()
    }

    pub fn ints_if(&self, name: &str) -> Option<Vec<i64>> {
        self.get(name).map(|_| self.ints(name))
    }

    pub fn usizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).into_iter().map(|v| usize::try_from(v).unwrap_or_else(|_| self.bad(name))).collect()
    }

    /// Height and width.
    pub fn pair(&self, name: &str) -> [usize; 2] {
        self.usizes(name).try_into().unwrap_or_else(|_| self.bad(name))
    }

    pub fn reduction(&self) -> Reduction {
        match self.str_or("reduction", "mean") {
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            "none" => Reduction::None,
            _ => self.bad("reduction"),
        }
    }

    /// The optimizer and its base rate. `prefix` stands before the name of each option; PyTorch's defaults apply.
    pub fn optimizer(&self, prefix: &str) -> (Optimizer, f64) {
        let option = |name: &str, default: f64| self.f64_or(&format!("{prefix}{name}"), default);
        let flag = |name: &str| self.bool_or(&format!("{prefix}{name}"), false);
        let name = self.str_or("optimizer", "");
        let rule = match name {
            "sgd" => Rule::Sgd {
                momentum: option("momentum", 0.0),
                dampening: option("dampening", 0.0),
                nesterov: flag("nesterov"),
            },
            "adam" | "adamw" => {
                let betas = self.0.get(format!("{prefix}betas"));
                let beta = |i: usize, default| betas.and_then(|b| b[i].as_f64()).unwrap_or(default);
                Rule::Adam {
                    betas: [beta(0, 0.9), beta(1, 0.999)],
                    eps: option("eps", 1e-8),
                    amsgrad: flag("amsgrad"),
                    decoupled: name == "adamw",
                }
            }
            "rmsprop" => Rule::RmsProp {
                alpha: option("alpha", 0.99),
                eps: option("eps", 1e-8),
                momentum: option("momentum", 0.0),
                centered: flag("centered"),
            },
            "adagrad" => Rule::Adagrad {
                lr_decay: option("lr_decay", 0.0),
                eps: option("eps", 1e-10),
                initial_accumulator: option("initial_accumulator_value", 0.0),
            },
            _ => self.bad("optimizer"),
        };
        let weight_decay = option("weight_decay", if name == "adamw" { 0.01 } else { 0.0 });
        (Optimizer::new(rule, weight_decay), self.f64(&format!("{prefix}lr")))
    }

    pub fn schedule(&self) -> Schedule {
        match self.str_or("schedule", "constant") {
            "constant" => Schedule::Constant,
            "step" => Schedule::Step { size: self.usize("step_size"), gamma: self.f64("gamma") },
            "cosine" => Schedule::Cosine { period: self.usize("T_max"), min: self.f64_or("eta_min", 0.0) },
            "warmup_cosine" => Schedule::WarmupCosine { warmup: self.usize("warmup"), total: self.usize("total") },
            _ => self.bad("schedule"),
        }
    }

    fn bad(&self, name: &str) -> ! {
        panic!("attribute `{name}` is missing or not as expected in {}", self.0)
    }
}
