//! The only place that holds `wgpu` objects: adapters, memory, pipelines, and the programs that play plans.

mod adapter;
mod clock;
mod memory;
mod mirror;
mod pipeline;
mod pool;
mod profile;
mod program;
mod raw;
mod readback;
mod sanitize;
mod trial;

pub use adapter::{Options, adapters};
pub use clock::Clock;
pub use profile::{Profile, Timing};
pub use program::Program;
pub(crate) use raw::Trust;
pub use raw::{RawBuffer, RawKernel};
pub use readback::Readback;
pub use trial::Tuned;

use crate::graph::choose::Choices;
use crate::graph::{Caps, DType, Function};
use crate::tune::ChoiceFile;
use crate::{Error, Result};
use pipeline::Pipelines;
use pool::Pool;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One adapter's device and queue - opened here, or lent by an app - with what they can do and what was compiled for
/// them. Cloning gives another handle.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    id: u64,
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    caps: Caps,
    checked: bool,
    pipelines: Pipelines,
    pool: Pool,
    /// Buffers that read-backs go through, waiting for the next one.
    staging: Mutex<Vec<wgpu::Buffer>>,
    /// Which kernels were chosen for which work.
    choices: Mutex<Choices>,
    /// The file that they are kept in, if compiling also tunes.
    tuning: Option<ChoiceFile>,
    /// The driver's words, once it has reported the device lost.
    lost: Arc<Mutex<Option<String>>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens the best adapter, or the one that the environment variable `SHADEGRAD_ADAPTER` names (see [`Options`]).
    ///
    /// ```no_run
    /// let gpu = shadegrad::Gpu::new()?;
    /// println!("{gpu}");
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Gpu::open`].
    pub fn new() -> Result<Gpu> {
        Gpu::open(&Options::default())
    }

    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where there is none, or none that fits; the driver's words where it does not open.
    pub fn open(options: &Options) -> Result<Gpu> {
        pollster::block_on(Gpu::open_async(options))
    }

    /// Works on an app's own device and queue, within the limits and features that it asked for. Nothing is submitted
    /// by [`Program::record`]; the app's error handler stays in place. Cooperative matrices, whose sizes only the adapter
    /// knows, are not used. Should the device be lost, tell by [`Gpu::device_lost`].
    ///
    /// Kernels make use of `SUBGROUP`, `SHADER_F16` and `TIMESTAMP_QUERY` where the device has them and, on CPU adapters,
    /// of `SHADER_INT64` and of 128 bytes of `IMMEDIATES`.
    ///
    /// Call it once, and clone what it gives: parameters belong to one `Gpu`.
    pub fn from_wgpu(device: &wgpu::Device, queue: &wgpu::Queue) -> Gpu {
        let info = device.adapter_info();
        // Only the adapter knows the sizes of its cooperative matrices.
        Gpu::assemble(device.clone(), queue.clone(), info, Vec::new(), &Options::default(), Arc::default())
    }

    fn assemble(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        matrices: Vec<(DType, u32)>,
        options: &Options,
        lost: Arc<Mutex<Option<String>>>,
    ) -> Gpu {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let caps = adapter::caps(&device, &info, matrices, options);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let tuning = options.tune.then(|| ChoiceFile::of(&info, &caps, options.checked));
        let stored = || tuning.as_ref().map(ChoiceFile::load).unwrap_or_default();
        let choices = Mutex::new(options.choices.clone().unwrap_or_else(stored));
        Gpu(Arc::new(Shared {
            id,
            device,
            queue,
            info,
            caps,
            choices,
            tuning,
            checked: options.checked,
            pipelines: Pipelines::default(),
            pool: Pool::default(),
            staging: Mutex::default(),
            lost,
        }))
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// What the adapter says of itself.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.0.info
    }

    /// The limits and abilities that kernels are chosen by.
    pub fn caps(&self) -> &Caps {
        &self.0.caps
    }

    /// The kernels chosen for this device so far: to be kept, and given to [`Options::choices`] or [`Gpu::set_choices`]
    /// another time.
    pub fn choices(&self) -> Choices {
        lock(&self.0.choices).clone()
    }

    /// Has programs to come use these choices: for a device that an app has lent ([`Gpu::from_wgpu`]).
    pub fn set_choices(&self, choices: Choices) {
        *lock(&self.0.choices) = choices;
    }

    /// Whether shaders keep their run-time checks.
    pub(crate) fn checked(&self) -> bool {
        self.0.checked
    }

    /// Compiles what `function` computes: fuses, plans, chooses kernels, creates pipelines (in parallel) and memory.
    ///
    /// Where [`Options::tune`] is on, work that is new to this device is measured first ([`Gpu::tune`]).
    ///
    /// # Errors
    /// The first mistake made while the graph was built; a tensor beyond the device's limits; what the device refuses.
    pub fn compile(&self, function: &Function) -> Result<Program> {
        if self.0.tuning.is_some() {
            self.tune(function)?;
        }
        Program::new(self, function)
    }

    /// Waits until everything submitted so far is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; what else the device reports.
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        let polled = caught(|| self.0.device.poll(kind));
        self.check_lost()?;
        polled
    }

    /// Says that the device is lost, which only its owner learns ([`wgpu::Device::set_device_lost_callback`]): for one that
    /// an app has lent ([`Gpu::from_wgpu`]). From then on everything that needs it returns [`Error::DeviceLost`].
    pub fn device_lost(&self, reason: impl Into<String>) {
        *lock(&self.0.lost) = Some(reason.into());
    }

    fn check_lost(&self) -> Result<()> {
        match lock(&self.0.lost).clone() {
            Some(reason) => Err(Error::DeviceLost(reason)),
            None => Ok(()),
        }
    }

    /// Runs `work` and turns what the device reports meanwhile into an error that says what was being done.
    fn guarded<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T> {
        let memory = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.0.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let result = work();
        let reports = [validation, internal, memory].map(|scope| pollster::block_on(scope.pop()));
        self.check_lost()?;
        match reports.into_iter().flatten().next() {
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { what: what.into() }),
            Some(other) => Err(Error::Device { what: what.into(), message: other.to_string() }),
            None => Ok(result),
        }
    }
}

/// What a poll says. Where waiting fails because the device is lost, wgpu has no error for it and panics instead.
fn caught(poll: impl FnOnce() -> Result<wgpu::PollStatus, wgpu::PollError>) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Device { what: "waiting".into(), message: error.to_string() }),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(message) if message.contains("Device::poll") => Err(Error::DeviceLost(message.clone())),
            // A callback of the app's own.
            _ => resume_unwind(panic),
        },
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.0.info.name, self.0.info.backend, self.0.info.driver_info)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu#{}({self})", self.0.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_panics_is_a_lost_device() {
        // In the words of wgpu 30.
        let operation = "Device::poll";
        let lost = caught(|| panic!("Error in {operation}: Parent device is lost"));
        assert!(matches!(&lost, Err(Error::DeviceLost(reason)) if reason.contains("is lost")), "{lost:?}");
        assert!(matches!(caught(|| Err(wgpu::PollError::Timeout)), Err(Error::Device { .. })));
        assert!(caught(|| Ok(wgpu::PollStatus::QueueEmpty)).is_ok());
        assert!(catch_unwind(|| caught(|| panic!("a mistake in a callback"))).is_err());
    }
}
