"""ONNX files: writing float32 and int8 models into them, checking and reading them."""
