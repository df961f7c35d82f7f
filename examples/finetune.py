"""Fine-tune a registered architecture on a folder of photographs, ready for ``ptqbench run``.

    python examples/finetune.py resnet18 photos resnet18-photos.safetensors --size 48
    ptqbench run resnet18 --weights resnet18-photos.safetensors --data photos

The folder holds ``train/`` and ``val/`` with one folder of pictures per class. The network
starts from the weights that ship with ptqbench (``--from-scratch``: from random ones) with a
new last layer. ``FILE.json`` is written next to the weights, with the preprocessing and the
classes, which is all that ptqbench needs to know about them.

All pictures are decoded once and kept in memory at the size of training: 7 kB each at 48
pixels, 150 kB at 224.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ptqbench import Preprocessing, UserError
from ptqbench.core.atomic import check_writable
from ptqbench.data.decode import load_image
from ptqbench.data.folder_layout import find_files
from ptqbench.models.catalog import MODELS
from ptqbench.weights.load import load_weights

FIRST_STEPS = 10
"""Batches after which the duration of an epoch can be estimated."""


def read_folder(
    folder: Path, classes: Sequence[str], preprocessing: Preprocessing
) -> tuple[Tensor, Tensor]:
    """All pictures of a folder with one folder per class.

    Returns:
        Pixels ``N×3×S×S`` uint8 and labels ``N`` int64.
    """
    files = find_files(folder, classes)
    if not files:
        raise UserError(f"There are no pictures in the class folders of {folder}.")
    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(lambda file: preprocessing.pixels(load_image(file.path)), files))
    return torch.stack(pixels), torch.tensor([file.label for file in files])


def normalise(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Pixels ``N×3×S×S`` uint8 as the network sees them, in the layout that trains fastest."""
    return preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last)


def starting_point(name: str, classes: int, from_scratch: bool) -> nn.Module:
    """The architecture with a new last layer, on the shipped weights or on random ones."""
    spec = MODELS.get(name)
    model = spec.factory(classes)
    if not from_scratch:
        initial = model.state_dict()
        shipped = load_weights(spec).state
        fitting = {
            key: value for key, value in shipped.items() if value.shape == initial[key].shape
        }
        model.load_state_dict({**initial, **fitting})
    return model.to(memory_format=torch.channels_last)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the pictures, and shift all by up to an eighth of their size."""
    size = pixels.shape[-1]
    reach = max(size // 8, 1)
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    down, right = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
    # Normalised pixels: padding by reflection leaves no border to learn from.
    padded = functional.pad(pixels, (reach,) * 4, mode="reflect")
    return padded[:, :, down : down + size, right : right + size].contiguous(
        memory_format=torch.channels_last
    )


@torch.inference_mode()
def top1(model: nn.Module, pixels: Tensor, labels: Tensor, preprocessing: Preprocessing) -> float:
    """Share of pictures whose highest logit is the label's."""
    model.eval()
    hits = 0
    for chosen in torch.arange(len(pixels)).split(100):
        logits = model(normalise(pixels[chosen], preprocessing))
        hits += int((logits.argmax(1) == labels[chosen]).sum())
    return hits / len(pixels)


def train(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    preprocessing: Preprocessing,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch: int = 32,
) -> None:
    """Train in place: AdamW, one cycle of the learning rate, cross-entropy with smoothing."""
    generator = torch.Generator().manual_seed(seed)
    batch = min(batch, len(pixels))
    steps = len(pixels) // batch  # whole batches: BatchNorm learns nothing from one picture
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(steps * epochs, 2), pct_start=0.2
    )
    for epoch in range(epochs):
        started, running = time.perf_counter(), 0.0
        model.train()
        order = torch.randperm(len(pixels), generator=generator)
        for step, chosen in enumerate(order[: steps * batch].split(batch)):
            images = augment(normalise(pixels[chosen], preprocessing), generator)
            loss = functional.cross_entropy(model(images), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            rate.step()
            running += float(loss.detach())
            if epoch == 0 and step == FIRST_STEPS:
                whole = (time.perf_counter() - started) * steps / (step + 1)
                print(f"an epoch takes about {whole:.0f} s here", flush=True)
        seconds = time.perf_counter() - started
        print(
            f"epoch {epoch + 1}/{epochs}: loss {running / steps:.3f}, {seconds:.0f} s", flush=True
        )


def save(
    path: Path, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str]
) -> Path:
    """Write the weights as safetensors with their sidecar next to them.

    Returns:
        The path of the sidecar.
    """
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    sidecar = {
        "resize": preprocessing.resize,
        "crop": preprocessing.crop,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "classes": list(classes),
    }
    sidecar_path = path.with_name(path.name + ".json")
    sidecar_path.write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    return sidecar_path


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="a registered name, such as resnet18")
    add("data", type=Path, help="folder with train/ and val/, one folder per class in each")
    add("output", type=Path, help="safetensors file to write; FILE.json is written next to it")
    add("--epochs", type=int, default=8, help="default: 8")
    add("--size", type=int, default=64, help="pixels a side; default: 64")
    add("--lr", type=float, default=1e-3, help="peak learning rate; default: 0.001")
    add("--seed", type=int, default=0, help="default: 0")
    add("--from-scratch", action="store_true", help="start from random weights")
    return parser.parse_args()


def finetune(arguments: argparse.Namespace) -> None:
    """Read, train, measure and save."""
    check_writable(arguments.output)
    torch.manual_seed(arguments.seed)
    preprocessing = Preprocessing(resize=arguments.size, crop=arguments.size)
    training = arguments.data / "train"
    if not training.is_dir():
        raise UserError(f"There is no folder {training}. Pass one with train/ and val/.")
    classes = sorted(folder.name for folder in training.iterdir() if folder.is_dir())
    # The name is checked before any picture is read.
    model = starting_point(arguments.model, len(classes), arguments.from_scratch)
    pixels, labels = read_folder(training, classes, preprocessing)
    held_out = read_folder(arguments.data / "val", classes, preprocessing)
    print(f"{len(pixels):,} pictures in {len(classes)} classes to train on", flush=True)
    train(
        model,
        pixels,
        labels,
        preprocessing,
        epochs=arguments.epochs,
        lr=arguments.lr,
        seed=arguments.seed,
    )
    share = top1(model, *held_out, preprocessing)
    sidecar = save(arguments.output, model, preprocessing, classes)
    print(f"top-1 {share:.2%} of {len(held_out[0]):,} pictures; {arguments.output}, {sidecar}")


if __name__ == "__main__":
    try:
        finetune(parse())
    except UserError as error:
        raise SystemExit(f"finetune: error: {error}") from None
