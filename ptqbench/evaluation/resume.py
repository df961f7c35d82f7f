"""Results of finished cases in a folder, so that an interrupted run goes on where it stopped.

Each case has a file of its own: the report of that case, and what it belongs to. A file that
belongs to something else, or cannot be read, is measured again and replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ptqbench.backends.artifact import int8_file_name
from ptqbench.backends.backend_registry import BACKENDS
from ptqbench.core.atomic import check_writable, write_text
from ptqbench.core.names import safe_file_name
from ptqbench.core.package_data import fixtures_dir
from ptqbench.core.paths import user_path
from ptqbench.core.version import package_version
from ptqbench.errors import UserError
from ptqbench.evaluation.case_plan import CaseKey, ModelPlan, refusal
from ptqbench.evaluation.machine import machine_facts
from ptqbench.evaluation.result import SCHEMA_VERSION, CaseResult, Report, plain
from ptqbench.evaluation.subject import shown_settings
from ptqbench.models.catalog import MODELS
from ptqbench.settings import data_specifier, weights_specifier

_MACHINE = ("cpu", "instruction_set", "flags", "physical_cores", "cpu_quota", "torch")
"""Facts of the machine that results depend on."""
_IRRELEVANT = ("artifacts", "workers")
"""Settings that no number depends on."""

ContentHash = Callable[[Path], str]


class ResultFolder:
    """A folder with a file for each finished case.

    Attributes:
        path: The folder.
        finished: Results that were read, by case.

    Args:
        path: The folder; it is created if it is missing.
        notify: Takes a sentence about what is read and what is measured again.

    Raises:
        UserError: It cannot be created or written to.
    """

    def __init__(self, path: str, notify: Callable[[str], None]) -> None:
        self.path = user_path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"The folder {path} cannot be created: {reason}.") from None
        check_writable(self.path / "case.json")
        self.finished: dict[CaseKey, CaseResult] = {}
        self._notify = notify
        self._requests: dict[CaseKey, dict[str, Any]] = {}

    def restore(self, plans: Sequence[ModelPlan], time_limit: float | None = None) -> None:
        """Read the results that belong to the planned cases.

        Cases that this machine cannot run are left out: their reason may have changed.

        Args:
            plans: All cases of the run.
            time_limit: Seconds that a case may take; a case that was ended after fewer is
                measured again. None: no limit.
        """
        content_hash = cache(_content_hash)  # of this run: files may change until the next
        for plan in plans:
            shared = _shared_request(plan, content_hash)
            for key in plan.keys:
                self._requests[key] = {**shared, "backend": key[1]}
                path = self.file(key)
                if refusal(plan.recipe, key[1]) is not None or not path.exists():
                    continue
                result = self._read(path, key, plan, time_limit)
                if isinstance(result, CaseResult):
                    self.finished[key] = result
                else:
                    self._notify(f"{key[0]} on {key[1]} is measured again: {result} ({path}).")
        if self.finished:
            count = f"{len(self.finished):,} of {sum(len(plan.keys) for plan in plans):,}"
            self._notify(f"{count} results were read from {self.path}.")

    def file(self, key: CaseKey) -> Path:
        """Path of the file of a case."""
        model = safe_file_name(key[0])
        if model != key[0]:  # names that differ in what files cannot be called
            model += f"-{hashlib.sha256(key[0].encode()).hexdigest()[:8]}"
        return self.path / f"{model}-{key[1]}.json"

    def write(self, key: CaseKey, report: Report, time_limit: float | None = None) -> None:
        """Write the result of a case that has just ended.

        A file that cannot be written is no reason to lose the results of the run.

        Args:
            key: The case.
            report: Of this case alone.
            time_limit: The limit in s that ended it; None: it ended otherwise.
        """
        content = {
            **report.to_dict(),
            "request": self._requests[key],
            "ended_after_seconds": time_limit,
        }
        try:
            write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", self.file(key))
        except UserError as error:
            self._notify(f"The result of {key[0]} on {key[1]} is not kept: {error}")

    def _read(
        self, path: Path, key: CaseKey, plan: ModelPlan, time_limit: float | None
    ) -> CaseResult | str:
        """Return the result in a file, or why the case has to be measured again."""
        try:
            content = json.loads(path.read_text("utf-8"))
            request, limit = content["request"], content["ended_after_seconds"]
            (case,) = Report.from_dict(content).cases
            different = _differences(request, self._requests[key])
            ended_earlier = limit is not None and (time_limit is None or time_limit > limit)
        except UserError as error:
            return str(error).removesuffix(" Measure again.").rstrip(".")
        except Exception as error:  # a damaged file has many ways to be unreadable
            return f"its file is damaged ({type(error).__name__})"
        if different:
            return f"its file belongs to another request, with other {' and '.join(different)}"
        if ended_earlier:
            return f"it was ended after {limit:g} s, and may take longer now"
        folder = plan.settings.artifacts
        if folder is not None and case.evidence is not None and case.evidence.unavailable is None:
            name = int8_file_name(plan.model, BACKENDS.get(case.backend))
            if not (user_path(folder) / name).is_file():
                return f"its artifact is not in {folder}"
        return case


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in now if stored.get(name) != now[name]]


def _shared_request(plan: ModelPlan, content_hash: ContentHash) -> dict[str, Any]:
    """Return what all results of a model depend on, by names for messages, as JSON values."""
    settings = {
        name: value
        for name, value in shown_settings(plan.settings).items()
        if name not in _IRRELEVANT
    }
    facts = machine_facts()
    request = {
        "model": plan.model,
        "model code": _code_hash(plan.model, content_hash),
        "ptqbench version": package_version(),
        "result format": SCHEMA_VERSION,
        "recipe": plan.recipe.hash,
        "settings": settings,
        "weights": _weights_hash(plan.model, str(plan.settings.weights), content_hash),
        "images": _images_hash(plan.settings.data, content_hash),
        "machine": {name: facts.get(name) for name in _MACHINE},
    }
    restored: dict[str, Any] = json.loads(json.dumps(plain(request)))
    return restored


def _code_hash(model: str, content_hash: ContentHash) -> str | None:
    """Hash of the file that defines a custom model, or its origin; None for torchvision's."""
    origin = MODELS.get(model).origin
    file = Path(origin.rpartition(", line ")[0])
    return content_hash(file) if origin and file.is_file() else origin or None


def _weights_hash(model: str, source: str, content_hash: ContentHash) -> str | None:
    """Hash of the file with the weights and of its sidecar; None for sources with versions."""
    if source == weights_specifier.FIXTURE:
        path = fixtures_dir() / "weights" / f"{model}.safetensors"
    elif weights_specifier.is_source_name(source):
        return None
    else:
        path = user_path(source)
    files = (path, path.with_name(f"{path.name}.json"), path.with_suffix(".json"))
    return _joined(content_hash(file) for file in dict.fromkeys(files) if file.is_file())


def _images_hash(source: str, content_hash: ContentHash) -> str | None:
    """Hash of the manifest, or of names, sizes and times of all files of a data set."""
    path = data_specifier.read_source(source).path
    if source == data_specifier.FIXTURE:
        return str(content_hash(fixtures_dir() / "manifest.json"))
    return None if path is None else str(content_hash(path))


def _content_hash(path: Path) -> str:
    """Hash of a file's content, or of names, sizes and times of all files in a folder."""
    if path.is_dir():
        return _joined(sorted(_listing(path)))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listing(folder: Path) -> Iterator[str]:
    entered: set[tuple[int, int]] = set()  # links may lead back to a folder above them
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield os.path.relpath(place, folder)
        status = _status(place)
        identity = None if status is None else (status.st_dev, status.st_ino)
        if identity is None or identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        for name in names:
            path = os.path.join(place, name)
            if status := _status(path):
                yield f"{os.path.relpath(path, folder)} {status.st_size} {status.st_mtime_ns}"


def _status(path: str) -> os.stat_result | None:
    """Status of a file or folder; None for a dangling link, which is reported elsewhere."""
    try:
        return os.stat(path)
    except OSError:
        return None


def _joined(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(os.fsencode(f"{part}\n"))
    return digest.hexdigest()
