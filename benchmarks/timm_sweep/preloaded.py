"""What every process of the sweep has imported when it begins.

Torch imports much of its tracing at the first use, so that a first model is made canonical here.
"""

import torch
from torch import nn

from benchmarks.timm_sweep import inspection  # noqa: F401
from ptqbench.models.custom.timm_models import import_timm
from ptqbench.quantization.canonical import canonical_model

import_timm("The sweep")
torch.set_num_threads(1)
_MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
canonical_model(_MODEL.eval(), torch.zeros(2, 3, 4, 4))
