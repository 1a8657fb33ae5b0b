use std::fs;

use ::safetensors::tensor::{TensorView, serialize};

use super::*;

fn sample() -> StateDict {
    let mut state = StateDict::new();
    state.metadata.insert("licence".into(), "\"quoted\" \u{1F600}\n".into());
    let mut put = |name: &str, tensor: Result<HostTensor>| state.tensors.insert(name.into(), tensor.unwrap());
    put("w", HostTensor::from_f32(&[2, 3], &[1.0, -2.5, f32::MIN_POSITIVE, 1e-45, f32::INFINITY, -0.0]));
    put("b", HostTensor::from_i32(&[2], &[i32::MIN, i32::MAX]));
    put("Z.count", HostTensor::from_u32(&[], &[u32::MAX]));
    put("empty", HostTensor::from_f32(&[0, 5], &[]));
    state
}

fn bytes_of(state: &StateDict) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    state.save(&path).unwrap();
    fs::read(path).unwrap()
}

fn foreign(dtype: Dtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
    serialize([("t", TensorView::new(dtype, shape.to_vec(), data).unwrap())], None).unwrap()
}

fn message(bytes: &[u8]) -> String {
    StateDict::parse(bytes, "x.safetensors").unwrap_err().to_string()
}

#[test]
fn round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for state in [sample(), StateDict::new()] {
        state.save(&path).unwrap();
        assert_eq!(StateDict::load(&path).unwrap(), state);
        assert!(looks_whole(&path));
        assert_eq!(fs::read(&path).unwrap(), bytes_of(&state), "the same state gives the same bytes");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn others_read_what_is_written() {
    let bytes = bytes_of(&sample());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names().len(), 4);
    assert_eq!(file.tensor("w").unwrap().shape(), [2, 3]);
    assert_eq!(file.tensor("b").unwrap().data(), sample().tensors["b"].bytes);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
}

#[test]
fn every_half_and_brain_float() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, exponent_bits) in [(Dtype::F16, 5), (Dtype::BF16, 8)] {
        let state = StateDict::parse(&foreign(dtype, &[65_536], &all), "x").unwrap();
        let fraction_bits = 15 - exponent_bits;
        let bias = (1 << (exponent_bits - 1)) - 1;
        for (bits, value) in state.get("t").unwrap().to_f32().unwrap().into_iter().enumerate() {
            // The definition: (-1)^s 2^(e - bias) 1.f, without the 1 at the least exponent.
            let (sign, rest) = (if bits >> 15 == 1 { -1.0 } else { 1.0 }, bits & 0x7fff);
            let (e, f) = (rest >> fraction_bits, rest & ((1 << fraction_bits) - 1));
            if e == (1 << exponent_bits) - 1 {
                assert!(if f == 0 { value == sign * f32::INFINITY } else { value.is_nan() }, "{dtype} {bits:#x}");
                continue;
            }
            let lead = if e == 0 { 0 } else { 1 << fraction_bits };
            let scale = 2f64.powi(e.max(1) as i32 - bias - fraction_bits);
            let expected = f64::from(sign) * (lead + f) as f64 * scale;
            assert_eq!(f64::from(value).to_bits(), expected.to_bits(), "{dtype} {bits:#x}");
        }
    }
}

#[test]
fn conversions() {
    let read = |dtype, data: &[u8], n| StateDict::parse(&foreign(dtype, &[n], data), "x").unwrap().tensors["t"].clone();
    let doubles: Vec<u8> = [0.1f64, -1e-300, f64::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(Dtype::F64, &doubles, 3).to_f32().unwrap(), [0.1, -0.0, f32::INFINITY]);
    let longs: Vec<u8> = [i64::from(i32::MIN), 5].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(read(Dtype::I64, &longs, 2).to_i32().unwrap(), [i32::MIN, 5]);
    assert_eq!(read(Dtype::U64, &7u64.to_le_bytes(), 1).to_u32().unwrap(), [7]);
    assert_eq!(read(Dtype::U8, &[0, 255], 2).to_u32().unwrap(), [0, 255]);
    assert_eq!(read(Dtype::BOOL, &[0, 1], 2).to_u32().unwrap(), [0, 1]);
    assert_eq!(read(Dtype::I8, &[0x80], 1).to_i32().unwrap(), [-128]);
    assert_eq!(read(Dtype::I16, &[0, 0x80], 1).to_i32().unwrap(), [-32768]);
    assert_eq!(read(Dtype::U16, &[255, 255], 1).to_u32().unwrap(), [65535]);
}

#[test]
fn values_out_of_range_are_named() {
    let big = message(&foreign(Dtype::I64, &[1], &(1i64 << 40).to_le_bytes()));
    assert_eq!(big, "x.safetensors: tensor `t`: the value 1099511627776 does not fit i32");
    assert!(message(&foreign(Dtype::F64, &[1], &1e300f64.to_le_bytes())).contains("does not fit f32"));
    assert!(message(&foreign(Dtype::U64, &[1], &u64::MAX.to_le_bytes())).contains("does not fit u32"));
    assert!(message(&foreign(Dtype::C64, &[1], &[0; 8])).contains("C64 is not supported"));
}

#[test]
fn truncation_is_always_an_error() {
    let mut state = sample();
    state.tensors.insert("more".into(), HostTensor::from_f32(&[300], &[1.0; 300]).unwrap());
    let bytes = bytes_of(&state);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.safetensors");
    for length in (0..bytes.len()).step_by(97).chain(0..40).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = StateDict::load(&path).unwrap_err().to_string();
        assert!(message.contains("short.safetensors: "), "{message}");
        assert!(message.contains(if length == 0 { "empty" } else { "truncated" }), "{length}: {message}");
        assert!(!looks_whole(&path));
    }
    fs::write(&path, [&bytes[..], b"tail"].concat()).unwrap();
    assert!(StateDict::load(&path).unwrap_err().to_string().contains("4 bytes more than its tensors fill"));
}

#[test]
fn damage_never_panics() {
    let bytes = bytes_of(&sample());
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut errors = 0;
    for at in 0..header {
        for flip in [1u8, 0x10, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            errors += usize::from(StateDict::parse(&bad, "x").is_err());
        }
    }
    assert!(errors > header * 3, "most damage to a header is seen: {errors} of {}", header * 4);
    let huge = br#"{"t":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551615]}}"#;
    assert!(message(&[&(huge.len() as u64).to_le_bytes()[..], huge].concat()).contains("truncated"));
    for json in
        [&b"{}      "[..], b"{\"t\":1} ", b"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", b"{]"]
    {
        let file = [&(json.len() as u64).to_le_bytes()[..], json].concat();
        assert_eq!(StateDict::parse(&file, "x").is_ok(), json.starts_with(b"{}"));
    }
}

#[test]
fn foreign_files_are_recognised() {
    for (bytes, words) in [
        (&b"PK\x03\x04\x14\x00\x00\x00\x08\x00 archive"[..], "save_file("),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P", "save_file("),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "NumPy"),
        (b"<!doctype html>", "web page"),
        (b"just some text, long enough", "not a safetensors file"),
    ] {
        assert!(message(bytes).contains(words), "{}", message(bytes));
    }
}

#[test]
fn what_cannot_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    sample().save(&path).unwrap();
    for (name, tensor) in [
        ("__metadata__", HostTensor::from_f32(&[], &[0.0]).unwrap()),
        ("", HostTensor::from_f32(&[], &[0.0]).unwrap()),
        ("w", HostTensor { dtype: HostType::F32, shape: vec![3], bytes: vec![0; 8] }),
    ] {
        let mut state = StateDict::new();
        state.tensors.insert(name.into(), tensor);
        assert!(matches!(state.save(&path), Err(Error::Argument { .. })), "{name}");
    }
    assert_eq!(StateDict::load(&path).unwrap(), sample(), "the old file is untouched");
    assert!(matches!(StateDict::load(folder.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(StateDict::load(folder.path()), Err(Error::Io { .. })));
}
