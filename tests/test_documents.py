"""The scripts that write numbers into the documents: their logic, and the blocks they need."""

import argparse
import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import ptqbench.data.fixture.scenes  # loaded before the checkout's folder comes first on the path
from ptqbench.errors import UserError
from ptqbench.evaluation.result import CaseResult, Report
from ptqbench.gates.gate import GateResult
from ptqbench.gates.verdict import Verdict
from ptqbench.recipes import RECIPES

ROOT = Path(__file__).parent.parent
BLOCKS = {
    "README.md": ("output", "results"),
    "docs/pytest.md": ("latency",),
    "docs/fixtures.md": ("weights", "discrimination"),
    "docs/weights.md": ("probe",),
    "docs/performance.md": ("overhead", "batch", "calibration"),
    "docs/own-models.md": ("run", "recipe"),
    "docs/data.md": ("decoding",),
    "docs/gate-foreign.md": ("gate",),
    "docs/recipes.md": ("sweep", "families"),
    "docs/coverage.md": ("coverage",),
    "docs/peers.md": ("peers",),
    "docs/gates.md": ("thresholds",),
    "docs/reference.md": ("settings", "thresholds", "gates", "pytest", "exit-codes"),
}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module


def result(verdicts, **metrics) -> CaseResult:
    gates = tuple(
        GateResult(name, verdict, None, None, None, None, f"{name} detail")
        for name, verdict in verdicts.items()
    )
    return CaseResult("resnet18", "fixture", "onednn", "fixture", "0" * 12, metrics, gates)


@pytest.mark.parametrize(("document", "name"), [(d, n) for d, ns in BLOCKS.items() for n in ns])
def test_every_block_is_where_its_script_looks(script, document, name):
    replace_block = script("benchmarks.blocks").replace_block
    text = (ROOT / document).read_text("utf-8")
    replaced = replace_block(text, name, "new")
    assert replaced != text
    assert replace_block(replaced, name, "new") == replaced


def test_the_reference_is_what_the_code_says(script):
    reference, replace_block = (
        script("benchmarks.reference"),
        script("benchmarks.blocks").replace_block,
    )
    text = reference.DOCUMENT.read_text("utf-8")
    for name, body in reference.blocks().items():
        assert replace_block(text, name, body) == text, "run python -m benchmarks.reference"
    text, body = reference.GATES_DOCUMENT.read_text("utf-8"), reference.thresholds_of_gates()
    assert replace_block(text, "thresholds", body) == text, "run python -m benchmarks.reference"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_every_link_leads_to_a_file_and_a_heading(path):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", path.read_text("utf-8")):
        if "://" in target:
            continue
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
            assert anchor in anchors, f"{target}#{anchor}"


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_every_script_and_module_that_is_named_exists(path):
    text = path.read_text("utf-8")
    for name in re.findall(r"python -m ((?:benchmarks|fixtures|ptqbench)\b[\w.]*)", text):
        script = ROOT / name.rstrip(".").replace(".", "/")
        assert script.with_suffix(".py").exists() or (script / "__main__.py").exists(), name
    rooms = "|".join(room.name for room in (ROOT / "ptqbench").iterdir() if room.is_dir())
    for name in re.findall(rf"`(?:ptqbench/)?((?:{rooms})/[\w/]+\.\w+)`", text):
        assert (ROOT / "ptqbench" / name).exists() or "/X." in name, name


def snippets():
    """Every Python example of the documents, by its document and number."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.DOTALL)
        yield from (pytest.param(code, id=f"{path.name}-{n}") for n, code in enumerate(blocks))


@pytest.mark.parametrize("code", list(snippets()))
def test_what_an_example_imports_or_uses_of_ptqbench_exists(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ptqbench"):
            module = importlib.import_module(node.module)
            assert all(each.name == "*" or hasattr(module, each.name) for each in node.names)
        match node:
            case ast.Attribute(value=ast.Name(id="ptqbench"), attr=name):
                assert hasattr(ptqbench, name), name


def test_the_files_that_the_design_names_exist():
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    answers = re.findall(r"^\| .*\? \| `(.*)` \|$", text, re.MULTILINE)
    assert len(answers) >= 10
    assert [name for name in answers if not (ROOT / name).is_file()] == []
    contracts = re.findall(r"\(`(\w+/\w+\.py)`\)", text)
    assert len(contracts) >= 5
    assert [name for name in contracts if not (ROOT / "ptqbench" / name).is_file()] == []


def test_the_design_lists_every_room_in_the_order_of_imports():
    text = (ROOT / "docs" / "design.md").read_text("utf-8")
    rooms = re.findall(r"^  (\w+)/ ", text, re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert rooms == [layer for layer in reversed(layers) if (ROOT / "ptqbench" / layer).is_dir()]


def test_a_block_is_replaced_and_nothing_else(script):
    replace_block = script("benchmarks.blocks").replace_block
    text = (
        "a\n<!-- begin x: by a command -->\nold\n<!-- end x -->\nb\n"
        "<!-- begin xy -->\nz\n<!-- end xy -->\n"
    )
    replaced = replace_block(text, "x", r"\1 new")
    assert replaced == text.replace("\nold\n", "\n\n\\1 new\n\n")
    with pytest.raises(ValueError, match="found 0"):
        replace_block(text, "y", "new")
    with pytest.raises(ValueError, match="found 2"):
        replace_block(text + text, "x", "new")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"accuracy": Verdict.PASS, "size": Verdict.PASS}, "pass"),
        (
            {
                "accuracy": Verdict.UNVERIFIED,
                "size": Verdict.FAIL,
                "speedup": Verdict.FAIL,
                "agreement": Verdict.INCONCLUSIVE,
            },
            "fail: size, speedup; inconclusive: agreement; unverified: accuracy",
        ),
        ({"accuracy": Verdict.UNVERIFIED, "size": Verdict.PASS}, "unverified: accuracy"),
        (
            {"accuracy": Verdict.UNVERIFIED, "size": Verdict.UNVERIFIED},
            "unverified: accuracy detail",
        ),
        ({}, "unverified"),
    ],
)
def test_the_table_names_the_gates_that_did_not_pass(script, verdicts, expected):
    case = result(verdicts).to_dict()
    assert script("benchmarks.readme_table").verdict(case) == expected


def test_a_row_of_the_table_holds_the_measured_numbers(script):
    module = script("benchmarks.readme_table")
    assert RECIPES.get("resnet18").backend == "onednn"
    metrics = {
        "float32_top1": 0.8125,
        "int8_top1": 0.81,
        "agreement": 0.991,
        "sqnr_db": 34.94,
        "float32_bytes": 44_800_000,
        "int8_bytes": 11_200_000,
        "size_ratio": 4.0,
        "float32_latency_ms": 34.04,
        "int8_latency_ms": 12.0,
        "speedup": 2.84,
    }
    case = result({"size": Verdict.PASS}, **metrics).to_dict()
    case["facts"] = {"speedup_interval": [2.8, 2.9]}
    assert module.row(case) == (
        "resnet18",
        "**onednn**",
        "81.25 → 81.00",
        "99.10",
        "34.9 dB",
        "44.8 → 11.2 (4.00×)",
        "34.0 → 12.0",
        "2.84× (2.80–2.90)",
        "pass",
    )


def test_the_table_is_made_from_results_that_are_written(script, tmp_path):
    module = script("benchmarks.readme_table")
    machine = {"cpu": "A", "instruction_set": "avx2", "physical_cores": 2, "system": "Linux",
               "python": "3.11", "torch": "2.13"}  # fmt: skip
    nothing = result({"size": Verdict.UNVERIFIED})
    report = json.loads(json.dumps(Report(machine, (nothing,)).to_dict()))
    lines = module.block([report]).splitlines()
    assert len(lines[0].split("|")) == len(module.HEADING) + 2
    assert lines[2].startswith("| resnet18 | **onednn** | – | – | – | – | – | – | unverified: size")
    assert "A (avx2, 2 physical cores)" in lines[4]


def test_decoding_without_and_with_workers_gives_the_same_batches(script, tmp_path):
    module = script("benchmarks.decoding")
    files = module.write_pictures(tmp_path, 3)
    none, two = (list(module.batches(files, workers)) for workers in (0, 2))
    assert [tuple(batch.shape) for batch in none] == [(3, 3, 224, 224)]
    assert all(torch.equal(a, b) for a, b in zip(none, two, strict=True))
    lines = module.block({0: 20.0, 1: 30.0, 2: 36.0}, 100.0, 3).splitlines()
    assert lines[2:5] == ["| 0 | 20 | 1.00× |", "| 1 | 30 | 1.50× |", "| 2 | 36 | 1.80× |"]


def test_of_a_gates_output_the_table_is_left_out(script):
    module = script("benchmarks.gate_output")
    rest = "✗ fail accuracy: why.\n\nA note.\n\nA CPU\n1 case"
    printed = f"ptqbench 0.1\n\n  Model\n✗ row\n\n{rest}\n"
    assert module.without_table(printed) == rest


def test_forward_passes_are_told_from_other_phases(script):
    module = script("benchmarks.overhead")
    phases = [
        {"name": "a", "seconds": 1.0, "forward": False},
        {"name": "b", "seconds": 2.5, "forward": True},
        {"name": "c", "seconds": 0.5, "forward": True},
    ]
    assert module.forward_seconds({"phases": phases}) == 3.0
    rows = module.phase_rows(phases, 5.0)
    assert [row[0] for row in rows[:3]] == ["b", "c", "a"]
    assert rows[3][2:] == ("1.00", "20.0 %")
    assert rows[4][2] == "**5.00**"


def test_a_process_is_measured_from_outside():
    # From a small process: what a child inherits before it begins counts as its peak.
    code = (
        "from benchmarks.overhead import run\n"
        "small, large = run(['-c', 'raise SystemExit(3)']), run(['-c', 'b\"1\" * 60_000_000'])\n"
        "assert (small.code, large.code) == (3, 0)\n"
        "print(large.peak_mb - small.peak_mb)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert 50 < float(printed) < 80


def test_the_poor_recipe_differs_in_three_things_only(script):
    recipe = RECIPES.get("mobilenet_v2")
    poor = script("fixtures.discriminate").poor(recipe)
    differing = {name for name in vars(recipe) if vars(recipe)[name] != vars(poor)[name]}
    assert differing == {"per_channel", "observer", "calibration_images"}
    assert (poor.per_channel, poor.observer, poor.calibration_images) == (False, "minmax", 4)


def test_float32_is_computed_once_for_all_recipes(script):
    calls = []
    once = script("fixtures.discriminate").Once(lambda x: calls.append(x) or 2 * x)
    batches = [torch.ones(2, 3), torch.zeros(1, 3)]
    for _ in range(3):
        once.rewind()
        assert all(torch.equal(once(batch), 2 * batch) for batch in batches)
    assert len(calls) == 2


def test_an_example_says_before_training_that_its_weights_cannot_be_written(script, tmp_path):
    output = tmp_path / "none" / "mine.safetensors"
    arguments = argparse.Namespace(
        model="resnet18", data=tmp_path, output=output, epochs=1, size=32, lr=1e-3, seed=0,
        from_scratch=True,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"Cannot write .*mine\.safetensors: there is no folder"):
        script("examples.finetune").finetune(arguments)


def test_the_contact_sheet_shows_every_class_and_is_small(script, tmp_path):
    module = script("fixtures.describe")
    sheet = module.contact_sheet()
    path = tmp_path / "sheet.png"
    sheet.save(path, optimize=True)
    assert path.stat().st_size < 150_000
    bands = len(module.CLASSES) // module.COLUMNS
    assert sheet.size == (8 * 64, bands * (module.LABEL + module.EXAMPLES * 64))
    first = np.asarray(sheet.convert("RGB"))[module.LABEL : module.LABEL + 64, :64].astype(int)
    scene = ptqbench.data.fixture.scenes.render(0, 2, 0, 0).astype(int)
    assert np.abs(first - scene).mean() < 12


def test_what_probe_weights_classify_comes_from_results_and_record(script):
    module = script("benchmarks.probe")
    facts = {"probe_head_images": 992, "probe_leave_one_out_top1": 0.25}
    entry = {"weights": "probe", "weights_facts": facts}
    measured = {"status": "measured", "evaluation_images": 300}
    cases = [
        measured | {"model": "alexnet", "metrics": {"float32_top1": 0.25}},
        measured | {"model": "resnet18", "metrics": {"float32_top1": 1.0}},
        {"model": "vgg11", "status": "missing"},
    ]
    models = {"alexnet": entry, "vgg11": entry, "resnet18": entry | {"weights": "fixture"}}
    rows = module.recorded({"runs": {"native": {"models": models, "cases": cases}}})
    assert list(rows) == ["alexnet"]
    text = module.body(rows.values())
    assert "25.0 to 25.0 % over 1 models" in text
    assert "| alexnet | 64 | 58 | 300 | 992 | 25.0 | 25.0 (20–30) | – |" in text
    timed = rows["alexnet"] | {"seconds": 12.3}
    assert "| 12 |" in module.body([timed])
    assert module.body([]) == "Nothing has been measured yet."
