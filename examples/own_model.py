"""An architecture of your own, as ptqbench takes it: a function with a name and an input size.

``ptqbench run my_net --plugin examples/own_model.py --weights my_net.safetensors --data photos``
judges it; no recipe is written for it (docs/own-models.md). ``python examples/own_model.py photos
my_net.safetensors`` trains it for a few seconds on a folder with one folder of images per class.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import ptqbench


class Residual(nn.Module):
    """Two convolutions and a shortcut; one ReLU module for both activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(x + y)


class Separable(nn.Module):
    """A depthwise convolution and a pointwise one, with the activation as a function."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, 2, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class MyNet(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(24)
        self.blocks = nn.Sequential(
            Residual(24), Separable(24, 48), Residual(48), Separable(48, 96), Residual(96)
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(96, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(self.dropout(x.mean((2, 3))))


@ptqbench.register_model("my_net", input_size=(3, 64, 64))
def my_net(num_classes: int = 7) -> nn.Module:
    return MyNet(num_classes)


def load(folder: Path, side: int) -> tuple[Tensor, Tensor, list[str]]:
    """All images of a folder of classes, ``N×3×H×W`` float32, their labels and the classes."""
    preprocessing = ptqbench.Preprocessing(resize=side, crop=side)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    pixels, labels = [], []
    from PIL import Image

    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            pixels.append(preprocessing.pixels(Image.open(path)))
            labels.append(label)
    return preprocessing.normalise(torch.stack(pixels)), torch.tensor(labels), classes


def train(folder: Path, target: Path, epochs: int = 8, side: int = 64) -> float:
    """Train on a folder of classes, write weights and sidecar; the accuracy while training."""
    torch.manual_seed(0)
    images, labels, classes = load(folder, side)
    model = my_net(len(classes)).train()
    batch = 32
    steps = epochs * -(-len(images) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    right = 0
    for _ in range(epochs):
        right = 0
        for chosen in torch.randperm(len(images)).split(batch):
            pixels = images[chosen]
            if torch.rand(()) < 0.5:
                pixels = pixels.flip(3)
            logits = model(pixels)
            loss = F.cross_entropy(logits, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            right += int((logits.argmax(1) == labels[chosen]).sum())
    save_file(model.state_dict(), target)
    sidecar = {"resize": side, "crop": side, "classes": classes}
    Path(f"{target}.json").write_text(json.dumps(sidecar, indent=2) + "\n", "utf-8")
    return right / len(images)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/own_model.py FOLDER WEIGHTS.safetensors")
    print(f"{train(Path(sys.argv[1]), Path(sys.argv[2])):.1%} of the training images right")
