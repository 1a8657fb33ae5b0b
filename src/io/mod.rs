//! Files: safetensors and checkpoints.
