"""ONNX Runtime on the CPU as a backend, with QDQ files as artifacts."""
