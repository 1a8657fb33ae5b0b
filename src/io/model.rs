//! Between parameters on a device and state dicts on the host.

use super::{HostTensor, HostType, StateDict};
use crate::graph::{DType, Param};
use crate::{Gpu, Result};

fn host_type(dtype: DType) -> HostType {
    match dtype {
        DType::F32 => HostType::F32,
        DType::U32 => HostType::U32,
        DType::I32 => HostType::I32,
    }
}

/// The values of named parameters (as [`crate::nn::Module::parameters`] gives them), read from the device.
pub fn state_dict(gpu: &Gpu, parameters: &[(String, Param)]) -> Result<StateDict> {
    let params: Vec<Param> = parameters.iter().map(|(_, param)| param.clone()).collect();
    let mut state = StateDict::new();
    for ((name, param), words) in parameters.iter().zip(gpu.read_params(&params)?) {
        let bytes = bytemuck::cast_slice(&words).to_vec();
        let tensor = HostTensor::from_bytes(host_type(param.desc().dtype), param.desc().shape.to_vec(), bytes)?;
        state.tensors.insert(name.clone(), tensor);
    }
    Ok(state)
}

/// Puts a state dict into named parameters: all of them, exactly; nothing changes if anything does not fit.
///
/// # Errors
/// [`crate::Error::State`] that lists every missing, extra and misshapen tensor.
pub fn load_state_dict(gpu: &Gpu, parameters: &[(String, Param)], state: &StateDict) -> Result<()> {
    let expected: Vec<(String, HostType, Vec<usize>)> = parameters
        .iter()
        .map(|(name, param)| (name.clone(), host_type(param.desc().dtype), param.desc().shape.to_vec()))
        .collect();
    state.check(&expected)?;
    for (name, param) in parameters {
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&state.get(name)?.bytes);
        gpu.write_param_words(param, &words)?;
    }
    Ok(())
}
