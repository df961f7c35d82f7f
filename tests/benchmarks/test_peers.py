"""The comparison with other runtimes: its record, its document, and what a run goes on from."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from benchmarks.peer_runtimes import peer_document, peer_record  # noqa: E402
from benchmarks.peer_runtimes.comparison import StoredLogits, in_batches  # noqa: E402

IDENTITY = {
    "machine": {"cpu": "A", "instruction_set": "avx2", "physical_cores": 2},
    "packages": {"torch": "1"},
    "image": [3, 4, 4],
    "evaluation_images": 8,
    "calibration_images": 4,
}


def entry(model: str, **sqnrs: float | None) -> peer_record.Entry:
    """A network on which each candidate has an SQNR; None: it could not be built."""
    rows: dict[str, Any] = {}
    for name, value in sqnrs.items():
        row = {"top1": 0.5, "agreement": 1.0, "sqnr_db": [value, value, value]}
        rows[name.replace("__", "-").replace("_", " ")] = {
            "file": name,
            **(row if value else {"error": "no such op"}),
        }
    result = peer_record.new_entry(model, IDENTITY) | {"rows": rows, "command": f"run {model}"}
    result["latency"] = {"threads": 1, "ms": {name: 2.5 for name in rows}}
    return result


def test_the_document_shows_the_record() -> None:
    content = json.loads((ROOT / "fixtures" / "peers.json").read_text("utf-8"))
    assert content["networks"]
    assert json.loads(peer_record.render(content["networks"])) == content
    text = (ROOT / "docs" / "peers.md").read_text("utf-8")
    assert peer_document.body(content["networks"]) in text
    for network in content["networks"]:
        assert f"`{network['command']}`" in text


def test_the_lead_is_over_the_best_peer_of_each_network() -> None:
    entries = [
        entry("one", ptqbench_x86=20.0, ONNX_Runtime_8__bit_exact=18.5, NNCF_default=17.0),
        entry("my.py:two", ptqbench_x86=20.0, NNCF_default=24.0, NNCF_mixed=None),
        entry("three", NNCF_default=24.0),
    ]
    text = peer_document.body(entries)
    assert "-1.2 dB on average over 2 networks (from -4.0 for two to +1.5 for one)" in text
    assert "without ORT exact, -0.5 dB on average over 2 networks (from -4.0 for two" in text
    sqnr = text.partition("SQNR")[2].partition("Agreement")[0]
    assert [line.count("**") for line in sqnr.splitlines() if line.startswith("| ")] == [
        0,
        0,
        2,
        2,
        2,
    ]
    assert "| refused |" in sqnr


def test_a_network_measured_again_takes_its_place() -> None:
    before = [entry("one", NNCF_default=1.0), entry("two", NNCF_default=2.0)]
    again, other = entry("one", NNCF_default=3.0), entry("one", NNCF_default=4.0)
    other["identity"] = deepcopy(IDENTITY)
    other["identity"]["machine"]["cpu"] = "B"
    entries = peer_record.merged(before, [again, other], ["two"])
    values = [each["rows"]["NNCF default"]["sqnr_db"][0] for each in entries]
    assert values == [2.0, 3.0, 4.0]


def test_a_run_goes_on_from_the_same_conditions_only(tmp_path: Path) -> None:
    path, record = tmp_path / "runs" / "one.json", tmp_path / "record.json"
    assert peer_record.read_entry(path, record, "one", IDENTITY)["rows"] == {}
    record.write_text(peer_record.render([entry("one", NNCF_default=1.0)]))
    shared = peer_record.read_entry(path, record, "one", IDENTITY)
    assert shared["rows"]["NNCF default"]["sqnr_db"][0] == 1.0
    peer_record.write_entry(path, entry("one", NNCF_default=2.0))
    newer = peer_record.read_entry(path, record, "one", IDENTITY)
    assert newer["rows"]["NNCF default"]["sqnr_db"][0] == 2.0
    other = peer_record.read_entry(path, record, "one", IDENTITY | {"evaluation_images": 9})
    assert other["rows"] == {}
    assert peer_record.has_files_of(path, newer)
    assert not peer_record.has_files_of(path, other)


def test_a_batch_is_computed_once_and_split_for_those_that_take_one_image() -> None:
    sizes: list[int] = []

    def model(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.sum((1, 2, 3))[:, None]

    first, second = torch.randn(2, 3, 1, 2, 2)
    stored = StoredLogits(model)
    assert torch.equal(stored(first), stored(first))
    assert not torch.equal(stored(second), stored(first))
    assert sizes == [3, 3]
    single = in_batches(model, 1)
    assert torch.allclose(single(first), stored(first))
    assert sizes == [3, 3, 1, 1, 1]
