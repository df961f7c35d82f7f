"""Models that a tracer or a converter has something to say to; lines are found by their text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.nn import functional as F


class Block(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int = 3, outputs: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    """A block, and a head over its mean."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.block = Block()
        self.head = nn.Linear(8, num_classes)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.block(x))


class Decides(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if x.mean() > 0.3:
            x = x * 0.5
        return x


class Loops(nn.Module):
    """Control flow that TorchScript keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if float(x.mean()) > 0.3:
            x = x * 0.5
        return x


class DecidesInside(Net):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.block = Decides()


class DecidesOutside(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        for _ in range(int(x.max() * 2)):
            x = x + 1
        return self.logits(x)


class LooksAtShapes(Block):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class ShapesInside(Net):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.block = LooksAtShapes()


class Pair(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.block(x)
        return self.logits(x), x


class Listing(Net):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [super().forward(x)]


class Named(Net):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(x), "aux": x}


class Maps(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Rows(Net):
    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        return self.head(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]))


class Nothing(Net):
    def forward(self, x: Tensor) -> None:
        super().forward(x)


class Empty(nn.Module):
    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Wide(Net):
    """Wants pictures of one size."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(8 * 16 * 16, num_classes)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class Stubbed(nn.Module):
    """Written for eager mode: stubs, FloatFunctional, a reused ReLU."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.second = Block(), Block(8, 8)
        self.sum = FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.quant(x))
        x = self.sum.add(x, self.second(x))
        return self.dequant(self.head(self.pool(x).flatten(1)))


class StubbedPlus(Stubbed):
    """A sum that forgets its FloatFunctional."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.quant(x))
        x = x + self.second(x)
        return self.dequant(self.head(self.pool(x).flatten(1)))


class StubbedLate(Stubbed):
    """Its first convolution gets float32."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(self.first(x))
        return self.dequant(self.head(self.pool(self.sum.add(x, self.second(x))).flatten(1)))


class Swaps(Block):
    """Hands on a list of tensors without taking them apart."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(super().forward(x).chunk(2, 1)[::-1], 1)


class HandsOnLists(Net):
    """A block that does so inside, and another layer behind it."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.block, self.last = Swaps(), Block(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.last(self.block(x)))


class StubbedPReLU(Stubbed):
    """An activation whose int8 kernel is wrong."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.second.relu = nn.PReLU()


class StubbedFloatPReLU(Stubbed):
    """The same, with float32 around it."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        activation = nn.PReLU()
        activation.qconfig = None
        self.second.relu = nn.Sequential(DeQuantStub(), activation, QuantStub())


class StubbedDecides(Stubbed):
    """Python that looks at a shape, in eager mode."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        return super().forward(x)


class Plain(nn.Module):
    """`Stubbed` without stubs, with the same keys."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first, self.second = Block(), Block(8, 8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(F.adaptive_avg_pool2d(x + self.second(x), 1).flatten(1))


class Everything(nn.Module):
    """A residual sum, a ReLU for two places, a functional ReLU and a depthwise convolution."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn1 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.bn2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        y = self.relu(self.bn1(self.depthwise(x)))
        x = self.relu(x + self.bn2(self.pointwise(y)))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
