"""Small classifiers that compute with ordinary layers, written in other ways.

Each is the kind of code that keeps a tracer of modules from seeing the layer: a subclass, a
function, a parametrization, an activation inside a BatchNorm, an operator in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 8


class Body(nn.Module):
    """A stem, the middle that matters, global pooling and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.ReLU())
        self.middle = middle
        self.head = nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)).mean((2, 3)))


class PaddedConv(nn.Conv2d):
    """Pads as TensorFlow does, then calls the function."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(
            reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.pad(x, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class StandardizedConv(nn.Conv2d):
    """Standardizes its weights in every forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class NormAct(nn.BatchNorm2d):
    """A BatchNorm with its activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Blur(nn.Module):
    """A fixed filter in a buffer, behind reflecting padding."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = (row[:, None] * row / 16).repeat(CHANNELS, 1, 1, 1)
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, groups=CHANNELS)


class FunctionalLayers(nn.Module):
    """Parameters, and functions that multiply with them."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(CHANNELS, CHANNELS, 3, 3) / 8)
        self.matrix = nn.Parameter(torch.randn(CHANNELS, CHANNELS) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1))
        return F.linear(x.permute(0, 2, 3, 1), self.matrix).permute(0, 3, 1, 2)


class InPlaceShortcut(nn.Module):
    """The shortcut reads what a ReLU in place has changed by then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(), conv()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y = self.relu(x)
        y = self.conv2(y)
        y += x
        return y


class Products(nn.Module):
    """Multiplies with one matrix, as positions are embedded, and with one for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(CHANNELS, CHANNELS) / CHANNELS**0.5)
        self.heads = nn.Parameter(torch.randn(2, CHANNELS // 2, CHANNELS // 2))

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = F.relu(x @ self.embedding.t())
        heads = x.reshape(count, height * width, 2, channels // 2).transpose(1, 2) @ self.heads
        x = x + heads.transpose(1, 2).flatten(2)
        return x.transpose(1, 2).reshape(count, channels, height, width)


class WritesIntoSlice(nn.Module):
    """Writes into a part of a value that is read as a whole afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = conv(bias=False), nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x[:, :2] *= 2
        return x


class Flattening(nn.Module):
    """The flattening of most tutorials, in front of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(CHANNELS * 16, 5)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.body(x)
        logits = self.head(x.view(x.size(0), -1))
        return logits if targets is None else F.cross_entropy(logits, targets)


def conv(**options: object) -> nn.Conv2d:
    settings = {"padding": 1, **options}
    return nn.Conv2d(CHANNELS, CHANNELS, 3, **settings)  # type: ignore[arg-type]


def _spectral() -> nn.Module:
    layer = nn.utils.parametrizations.spectral_norm(conv())
    return nn.Sequential(layer, nn.ReLU())


def _old_weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(conv()), nn.ReLU())


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "padding as TensorFlow": lambda: nn.Sequential(
        PaddedConv(CHANNELS, CHANNELS, 3, 2), nn.BatchNorm2d(CHANNELS), nn.ReLU()
    ),
    "standardized weights": lambda: StandardizedConv(CHANNELS, CHANNELS, 3, padding=1),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(conv()),
    "old weight norm": _old_weight_norm,
    "spectral norm": _spectral,
    "activation in a BatchNorm": lambda: nn.Sequential(conv(), NormAct(CHANNELS)),
    "fixed filter": Blur,
    "functions": FunctionalLayers,
    "padding=same": lambda: conv(padding="same", dilation=2),
    "uneven padding=same": lambda: nn.Conv2d(CHANNELS, CHANNELS, 4, padding="same"),
    "padding=valid": lambda: conv(padding="valid"),
    "replicate": lambda: conv(padding_mode="replicate"),
    "circular": lambda: conv(padding_mode="circular"),
    "SyncBatchNorm": lambda: nn.Sequential(conv(), nn.SyncBatchNorm(CHANNELS), nn.ReLU()),
    "two BatchNorms": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)
    ),
    "BatchNorm without parameters": lambda: nn.Sequential(
        conv(), nn.BatchNorm2d(CHANNELS, affine=False)
    ),
    "Dropout and Identity in between": lambda: nn.Sequential(
        conv(), nn.Identity(), nn.BatchNorm2d(CHANNELS), nn.Dropout2d(0.5), nn.ReLU()
    ),
    "shortcut in place": InPlaceShortcut,
    "products with matrices": Products,
    "write into a slice": WritesIntoSlice,
}
"""What stands in the middle of a `Body`, by what is unusual about it."""


def network(name: str) -> nn.Module:
    """A seeded network in evaluation mode, with statistics that differ from channel to channel."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Flattening() if name == "flattening" else Body(MIDDLES[name]())
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.7, 1.3)
                    nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()
