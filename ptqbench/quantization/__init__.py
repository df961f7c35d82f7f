"""From a float32 model and a recipe to an int8 module: fuse, observe, calibrate, convert.

``torch.ao.quantization`` is deprecated; together with ``backends`` this is the only
place that imports it.
"""
