"""ExecuTorch on the CPU as a backend, with ``.pte`` files that XNNPACK executes as artifacts."""
