"""A small package that answers like timm, for tests where timm need not be installed."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Configuration:
    """What timm records about weights: `timm.models.PretrainedCfg`."""

    input_size: tuple[int, ...] = (3, 32, 32)
    num_classes: int = 1000
    crop_pct: float | None = 0.8
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    fixed_input_size: bool = False
    has_weights: bool = True
    hf_hub_id: str | None = "timm/double"
    url: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Net(nn.Module):
    """A classifier with the attributes that timm's models have."""

    def __init__(self, num_classes: int, configuration: Configuration) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.head = nn.Linear(8, num_classes)
        self.num_classes = num_classes
        self.pretrained_cfg = configuration.to_dict()

    def forward(self, x):
        return self.head(self.act(self.bn(self.conv(x))).mean((2, 3)))


CONFIGURATIONS = {
    "lcnet_050": Configuration(),
    "lcnet_075": Configuration(has_weights=False),
    "resnet18": Configuration(interpolation="bilinear"),
    "resnet18.small_in1k": Configuration(input_size=(3, 64, 64), crop_pct=1.0),
    "resnet101": Configuration(),
    "vit_fixed": Configuration(fixed_input_size=True, crop_mode="squash", num_classes=0),
    "oblong": Configuration(input_size=(3, 32, 48)),
}


def timm_double(version: str = "9.9.9") -> ModuleType:
    """Make the module."""
    timm: Any = ModuleType("timm")
    timm.__version__ = version
    timm.models = ModuleType("timm.models")
    timm.models.set_pretrained_download_progress = lambda enable: None

    def list_models(filter: str = "*", include_tags: bool = False) -> list[str]:
        names = [name for name in CONFIGURATIONS if include_tags or "." not in name]
        return fnmatch.filter(names, filter)

    def create_model(name: str, pretrained: bool = False, num_classes: int = 1000) -> nn.Module:
        if pretrained:
            raise OSError("nobody answers")
        return Net(num_classes, CONFIGURATIONS[name])

    timm.list_models = list_models
    timm.list_pretrained = lambda pattern: list_models(pattern, include_tags=True)
    timm.is_model = lambda name: name.partition(".")[0] in CONFIGURATIONS
    timm.get_pretrained_cfg = lambda name: CONFIGURATIONS[name]
    timm.create_model = create_model
    return timm
