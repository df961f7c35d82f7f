"""The published JSON Schema of the settings: up to date, and it accepts what the code accepts."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from ptqbench.errors import UserError
from ptqbench.recipes.recipe_catalog import CATALOG
from ptqbench.settings.discovery import load
from ptqbench.settings.json_schema import SCHEMA_FILE, schema_text, settings_schema

ROOT = Path(__file__).parents[2]

EXAMPLES = (
    "",
    'models = "resnet*"\nbackends = ["x86", "onednn"]\nprofile = "ci"',
    'weights = "mine.safetensors"\ndata = "photos"\nlimit = 100\nbroken_share = 0.5\nworkers = 2',
    'report.json = "a.json"\nreport.markdown = "a.md"\nbaselines = "refs"',
    "thresholds.accuracy = 0.98\nthresholds.speedup = 1.2\nthresholds.max_bytes = '3 MiB'",
    "thresholds.speedup.avx2 = 1.5\nthresholds.max_bytes = 3000000",
    "preprocessing.resize = 72\npreprocessing.mean = [0.5, 0.4, 0.3]\nclasses = ['cat', 'dog']",
    'model."resnet*".seed = 3\nmodel.vgg11.thresholds.reference_top1 = 0.7',
    'plugins = ["my_package.quant"]\nrecipes = "my.toml"\nseed = 0\nbatch_size = 2\nthreads = 1',
)
MISTAKES = (
    "wieghts = 'a'",
    "thresholds.acuracy = 1",
    "thresholds.accuracy = 99",
    "thresholds.accuracy = true",
    "thresholds.accuracy = 0.9\nthresholds.reference_top1 = 0.7",
    "thresholds.speedup.avx3 = 1",
    "thresholds.max_bytes = '3 miles'",
    "thresholds = 1",
    "profile = 'strict'",
    "threads = 0",
    "limit = 'all'",
    "models = []",
    "preprocessing.std = [1, 0, 1]",
    "preprocessing.interpolation = 'cubic'",
    "classes = []",
    "report.html = 'a.html'",
    "threads = 1025",
    "model.resnet18.profile = 'ci'",
    "model.resnet18.sed = 1",
    "model = 'x'",
)


def validate(text: str) -> None:
    jsonschema.Draft202012Validator(settings_schema()).validate(tomllib.loads(text))


def test_the_shipped_file_is_what_the_table_generates() -> None:
    assert SCHEMA_FILE.read_text("utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(settings_schema())


def test_the_module_prints_it() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "ptqbench.settings.json_schema"], capture_output=True, check=True
    )
    assert json.loads(printed.stdout) == settings_schema()


@pytest.mark.parametrize("text", EXAMPLES)
def test_what_the_code_accepts_is_accepted(tmp_path: Path, text: str) -> None:
    validate(text)
    (tmp_path / "ptqbench.toml").write_text(text, "utf-8")
    load(tmp_path, CATALOG)


@pytest.mark.parametrize("text", MISTAKES)
def test_what_the_code_refuses_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ptqbench.toml").write_text(text, "utf-8")
    with pytest.raises(UserError):
        load(tmp_path, CATALOG)
    with pytest.raises(jsonschema.ValidationError):
        validate(text)


def test_this_project_s_own_settings_are_valid() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    jsonschema.Draft202012Validator(settings_schema()).validate(project["tool"]["ptqbench"])
