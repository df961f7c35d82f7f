"""Make the probe weights of models, see how well they classify, and write docs/weights.md.

``python -m benchmarks.probe`` measures every model that has no result yet for the present
weights, the cheapest first, keeps a file for each in ``build/probe/``, and writes the table of
all results. ``--models 'resnet*'`` names some, ``--most-gmacs 5`` leaves the expensive ones out,
``--table`` only writes the table. Models that have no result here are taken from what
``python -m benchmarks.coverage`` measured with the same weights (``fixtures/coverage.json``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.blocks import BUILD, ROOT, rewrite, table
from ptqbench.core.atomic import atomic_path
from ptqbench.models.catalog import MODELS, ModelSpec
from ptqbench.models.import_torchvision import import_torchvision
from ptqbench.weights.probe.network import ALGORITHM, compute_probe, preprocessing_of

RESULTS = BUILD / "probe"
RECORD = ROOT / "fixtures" / "coverage.json"
IMAGES, BATCH = 500, 50
HEADING = (
    "Model",
    "Side",
    "MMAC",
    "Images",
    "Head images",
    "Leave-one-out %",
    "Top-1 % (95 %)",
    "Made in s",
)

Json = Mapping[str, Any]


def giga_macs(spec: ModelSpec) -> float:
    """What a picture costs at the side of the probe, from torchvision's figures, in 1e9."""
    weights = import_torchvision().models.get_model_weights(spec.name)
    cheapest = min(weights, key=lambda each: float(each.meta["_ops"]))
    share = (preprocessing_of(spec).crop / int(cheapest.transforms().crop_size[0])) ** 2
    return float(cheapest.meta["_ops"]) * share


def measure(spec: ModelSpec) -> dict[str, Any]:
    """Make the weights of a model, and count what they get right."""
    import torch

    from ptqbench.data.fixture.images import open_fixture
    from ptqbench.data.fixture.shapes import CLASSES
    from ptqbench.reporting.progress_display import progress_display
    from ptqbench.weights.load import Weights, build_model
    from ptqbench.weights.probe.probe_cache import state_hash

    with progress_display() as progress:
        start = time.perf_counter()
        probe = compute_probe(spec, 0, progress=progress)
        seconds = time.perf_counter() - start
    preprocessing, sha256 = preprocessing_of(spec), state_hash(probe.state)
    weights = Weights("probe", probe.state, preprocessing, CLASSES, len(CLASSES), sha256)
    model, facts = build_model(spec, weights), dict(probe.facts)
    del probe, weights
    right = 0
    with torch.inference_mode():
        for pixels, labels in open_fixture(preprocessing).evaluation.batches(0, IMAGES, BATCH):
            right += int((model(pixels).argmax(dim=1) == labels).sum())
    return {
        "model": spec.name,
        "algorithm": ALGORITHM,
        "sha256": sha256,
        "side": preprocessing.crop,
        "giga_macs": giga_macs(spec),
        "images": IMAGES,
        "right": right,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        **facts,
    }


def stored(model: str) -> Json | None:
    """The result of a model, if it is of the present algorithm."""
    try:
        result: Json = json.loads((RESULTS / f"{model}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("algorithm") == ALGORITHM else None


def recorded(content: Json) -> dict[str, Json]:
    """Results by model from a record of the whole matrix; how long making took is not in it."""
    run = content["runs"]["native"]
    measured = {case["model"]: case for case in run["cases"] if case["status"] == "measured"}
    results = {}
    for name, entry in run["models"].items():
        if entry.get("weights") == "probe" and name in measured:
            images = measured[name]["evaluation_images"]
            results[name] = {
                "model": name,
                "side": preprocessing_of(MODELS.get(name)).crop,
                "giga_macs": giga_macs(MODELS.get(name)),
                "images": images,
                "right": round(images * measured[name]["metrics"]["float32_top1"]),
                "seconds": None,
                **entry["weights_facts"],
            }
    return results


def keep(result: Json) -> None:
    """Write the result of a model."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with atomic_path(RESULTS / f"{result['model']}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), "utf-8")


def body(results: Iterable[Json]) -> str:
    """The table, the cheapest model first, and what it says."""
    from ptqbench.measurement.intervals import proportion

    rows, shares = [], []
    for each in sorted(results, key=lambda result: float(result["giga_macs"])):
        share = proportion(each["right"], each["images"])
        shares.append(share.value)
        rows.append(
            (
                each["model"],
                str(each["side"]),
                f"{1000 * each['giga_macs']:,.0f}",
                f"{each['images']:,}",
                f"{each['probe_head_images']:,}",
                f"{100 * each['probe_leave_one_out_top1']:.1f}",
                f"{100 * shares[-1]:.1f} ({100 * share.low:.0f}–{100 * share.high:.0f})",
                "–" if each["seconds"] is None else f"{each['seconds']:.0f}",
            )
        )
    if not rows:
        return "Nothing has been measured yet."
    summary = (
        "Float32 top-1 on evaluation images (sixteen classes, chance 6.25 %): "
        f"{100 * min(shares):.1f} to {100 * max(shares):.1f} % over {len(rows)} models, the median "
        f"{100 * median(shares):.1f} %. Side and multiply-adds (in 1e6) are those of the images "
        "that the head was solved on, not of the latency. Rows without seconds were measured "
        "together with the coverage."
    )
    return f"{summary}\n\n{table(HEADING, rows, right=range(1, len(HEADING)))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["*"], metavar="NAME")
    parser.add_argument("--most-gmacs", type=float, default=float("inf"), metavar="N")
    parser.add_argument("--table", action="store_true", help="write the table and measure nothing")
    args = parser.parse_args(argv)
    specs = sorted((MODELS.get(name) for name in MODELS.match(*args.models)), key=giga_macs)
    for spec in [] if args.table else specs:
        if giga_macs(spec) <= args.most_gmacs and stored(spec.name) is None:
            keep(result := measure(spec))
            print(f"{spec.name}: {result['right']} of {IMAGES} right", file=sys.stderr, flush=True)
    results = recorded(json.loads(RECORD.read_text("utf-8")))
    results |= {name: each for name in MODELS.names() if (each := stored(name)) is not None}
    rewrite(ROOT / "docs" / "weights.md", "probe", body(results.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
