"""What is passed over while a folder of pictures is read, for the notes of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ptqbench.core.names import first_few

_NAMED = 3


@dataclass
class Omissions:
    """Files and folders that are not read, by their path below a folder.

    Attributes:
        top: The folder.
        hidden: Files and folders whose name begins with a dot.
        others: Files whose extension is not that of a picture.
        empty: Folders of classes without a picture.
        unknown: Folders that are not a class of the data, and pictures beside class folders.
        repeated: Links to folders that are read already.
    """

    top: Path
    hidden: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)

    def note(self) -> tuple[str, ...]:
        """Count and name them in a sentence; nothing if there are none."""
        kinds = (
            (self.hidden, "hidden", "hidden"),
            (self.others, "file of another kind", "files of other kinds"),
            (self.empty, "folder without pictures", "folders without pictures"),
            (self.unknown, "of no class", "of no class"),
            (self.repeated, "link to a folder read already", "links to folders read already"),
        )
        texts = [
            f"{len(paths):,} {one if len(paths) == 1 else many} ({self._named(paths)})"
            for paths, one, many in kinds
            if paths
        ]
        return (f"Passed over in {self.top}: {'; '.join(texts)}.",) if texts else ()

    def _named(self, paths: list[Path]) -> str:
        return first_few([str(p.relative_to(self.top)) for p in sorted(paths)], _NAMED)
