"""From a float32 model and a recipe to an int8 module: fuse, observe, calibrate, convert.

``torch.ao.quantization`` is deprecated; only this package and ``backends/torch_engines`` import it.
"""
