//! Between parameters on a device and state dicts on the host.

use super::{HostTensor, HostType, StateDict};
use crate::graph::{DType, Param};
use crate::{Error, Gpu, Result};
use std::collections::HashMap;

/// The type on the host, where f16 is f32.
fn host_type(dtype: DType) -> HostType {
    match dtype {
        DType::F32 | DType::F16 => HostType::F32,
        DType::U32 => HostType::U32,
        DType::I32 => HostType::I32,
    }
}

/// Refuses two parameters of one name, as a state dict would hold only one of them.
pub(crate) fn distinct(parameters: &[(String, Param)]) -> Result<()> {
    let mut known = HashMap::new();
    for (name, param) in parameters {
        if known.insert(name, param).is_some_and(|other| other != param) {
            return Err(Error::argument(name, "two parameters have this name; give each layer one of its own"));
        }
    }
    Ok(())
}

/// The values of named parameters, f16 ones as f32 (as [`crate::nn::Module::parameters`] gives them), read from the device.
///
/// # Errors
/// Two parameters of one name; what [`Gpu::read_params`] reports.
pub fn state_dict(gpu: &Gpu, parameters: &[(String, Param)]) -> Result<StateDict> {
    distinct(parameters)?;
    let params: Vec<Param> = parameters.iter().map(|(_, param)| param.clone()).collect();
    let mut state = StateDict::new();
    for ((name, param), words) in parameters.iter().zip(gpu.read_params(&params)?) {
        let (desc, dtype) = (param.desc(), param.desc().dtype);
        let bytes = match dtype {
            DType::F16 => bytemuck::cast_slice(&dtype.floats(&words, desc.elements())).to_vec(),
            _ => bytemuck::cast_slice(&words).to_vec(),
        };
        state.tensors.insert(name.clone(), HostTensor::from_bytes(host_type(dtype), desc.shape.to_vec(), bytes)?);
    }
    Ok(state)
}

/// Puts a state dict into named parameters: all of them, exactly; nothing changes if anything does not fit.
///
/// # Errors
/// [`crate::Error::State`] that lists every missing, extra and misshapen tensor; two parameters of one name.
pub fn load_state_dict(gpu: &Gpu, parameters: &[(String, Param)], state: &StateDict) -> Result<()> {
    check_state_dict(parameters, state)?;
    for (name, param) in parameters {
        let tensor = state.get(name)?;
        match param.desc().dtype {
            DType::F16 => gpu.write_param(param, &tensor.to_f32()?)?,
            _ => gpu.write_param_words(param, &bytemuck::pod_collect_to_vec::<u8, u32>(&tensor.bytes))?,
        }
    }
    Ok(())
}

/// Whether [`load_state_dict`] would take it.
pub(crate) fn check_state_dict(parameters: &[(String, Param)], state: &StateDict) -> Result<()> {
    distinct(parameters)?;
    let expected: Vec<(String, HostType, Vec<usize>)> = parameters
        .iter()
        .map(|(name, param)| (name.clone(), host_type(param.desc().dtype), param.desc().shape.to_vec()))
        .collect();
    state.check(&expected)
}
