//! Persistent state: weights, running statistics, optimizer moments.

use super::{DType, Desc, Shape};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a [`Param`] is for; it decides which memory it shares and whether `minimize` trains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Learned by the optimizer.
    Weight,
    /// Kept and saved with the weights but not learned (running statistics).
    Buffer,
    /// Belongs to training: optimizer moments, hyper-parameters, random state.
    State,
}

/// Named, persistent state in GPU memory, shared in place by every program that uses it.
///
/// A `Param` is created on the host with its first values and moves to the device with the first program that
/// uses it. Cloning gives another handle on the same state.
#[derive(Clone)]
pub struct Param(Arc<Inner>);

struct Inner {
    id: u64,
    name: Mutex<String>,
    desc: Desc,
    role: Role,
    memory: Mutex<Memory>,
}

/// Where a parameter's values are.
pub(crate) enum Memory {
    /// On the host, waiting for a device.
    Host(Vec<u32>),
    /// On a device; what it is only that device's module knows.
    Device(Arc<dyn Any + Send + Sync>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Param {
    fn from_words(name: impl Into<String>, role: Role, desc: Desc, mut words: Vec<u32>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // A shape beyond all limits is refused by the graph that uses it.
        if desc.check().is_ok() {
            words.resize(desc.words(), 0);
        }
        Param(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: Mutex::new(name.into()),
            desc,
            role,
            memory: Mutex::new(Memory::Host(words)),
        }))
    }

    /// An f32 parameter with these first values; missing ones are zero, surplus ones are dropped.
    pub fn new(name: impl Into<String>, role: Role, shape: impl Into<Shape>, values: &[f32]) -> Self {
        Self::from_words(name, role, Desc::f32(shape), values.iter().map(|v| v.to_bits()).collect())
    }

    /// An f16 parameter with these first values, rounded.
    pub fn new_f16(name: impl Into<String>, role: Role, shape: impl Into<Shape>, values: &[f32]) -> Self {
        let desc = Desc::new(shape, DType::F16);
        let values = &values[..values.len().min(desc.elements())];
        Self::from_words(name, role, desc, DType::F16.words(values))
    }

    /// A u32 parameter with these first values.
    pub fn new_u32(name: impl Into<String>, role: Role, shape: impl Into<Shape>, values: &[u32]) -> Self {
        Self::from_words(name, role, Desc::new(shape, DType::U32), values.to_vec())
    }

    /// The name, as in a PyTorch state dict once the layers around it have named it.
    pub fn name(&self) -> String {
        lock(&self.0.name).clone()
    }

    /// Renames it; containers put their own name in front.
    pub fn rename(&self, name: impl Into<String>) {
        *lock(&self.0.name) = name.into();
    }

    /// Shape and element type.
    pub fn desc(&self) -> &Desc {
        &self.0.desc
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// A number that no other parameter of this process has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The values' place, locked.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.0.memory)
    }
}

impl PartialEq for Param {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Param#{}({})", self.0.id, self.0.desc)
    }
}
