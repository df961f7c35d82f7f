"""torch's quantized engines, with frozen TorchScript as the artifact."""
