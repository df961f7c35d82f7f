"""Inductor's int8 kernels for x86, with programs of ``torch.export`` as artifacts."""
