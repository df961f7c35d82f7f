"""The canonical float graph: what a model computes, in plain layers, proven equal to it.

A model is captured once as an ATen graph (``torch.export``), which sees through subclasses,
functional calls, parametrizations and in-place operators, and is rebuilt from torch's own
layers under the module paths of the user's model. Fusion, observation and every runtime start
from that.
"""

from ptqbench.core.step_errors import CALLER
from ptqbench.quantization.canonical.model import canonical_model, quantizable_model

__all__ = ["CALLER", "canonical_model", "quantizable_model"]
