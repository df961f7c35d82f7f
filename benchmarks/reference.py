"""Write the tables of docs/reference.md and docs/gates.md from the code that they describe.

python -m benchmarks.reference
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.blocks import ROOT, rewrite, table
from ptqbench.cli.exit_codes import EXIT_CODES
from ptqbench.gates import gates_in_order
from ptqbench.settings.schema import SETTINGS
from ptqbench.settings.setting import Setting
from ptqbench.settings.thresholds import INSTRUCTION_SETS, Thresholds
from ptqbench.testing.options import options_table

DOCUMENT = ROOT / "docs" / "reference.md"
GATES_DOCUMENT = ROOT / "docs" / "gates.md"


def thresholds_of_gates() -> str:
    """The table of docs/gates.md: what each gate requires, and the default."""
    defaults = Thresholds()
    rows = []
    for gate in gates_in_order():
        for name in gate.thresholds:
            if name == "speedup":
                sets = ", ".join(f"`{each}`" for each in INSTRUCTION_SETS)
                meaning = f"how many times faster int8 must be on CPUs with `SET`: {sets}"
                rows.append(("`speedup.SET`", meaning, "by recipe", gate.name))
            else:
                value = getattr(defaults, name)
                default = "–" if value is None else str(value)
                help_ = _cell(SETTINGS[f"thresholds.{name}"].help)
                rows.append((f"`{name}`", help_, default, gate.name))
    return table(("name", "meaning", "default", "gate"), rows)


def blocks() -> dict[str, str]:
    """The body of each block, by its name."""
    thresholds = [row for row in SETTINGS.values() if row.key.startswith("thresholds.")]
    others = [row for row in SETTINGS.values() if row not in thresholds]
    return {
        "settings": table(
            ("setting", "meaning", "default", "command line", "pytest", "per model"),
            map(_setting_row, others),
        ),
        "thresholds": table(
            ("setting", "meaning"), ((f"`{row.key}`", _cell(row.help)) for row in thresholds)
        ),
        "pytest": table(
            ("option", "meaning"), ((f"`{name}`", _cell(text)) for name, text in options_table())
        ),
        "gates": table(("gate", "question", "thresholds"), _gate_rows()),
        "exit-codes": table(
            ("code", "meaning"), ((str(code), text) for code, text in EXIT_CODES.items())
        ),
    }


def _setting_row(setting: Setting) -> tuple[str, ...]:
    flags = dict.fromkeys(f"`{option.flag}`" for option in setting.commands)
    return (
        f"`{setting.key}`",
        _cell(setting.help),
        _cell(setting.default_text) or "–",
        ", ".join(flags) or "–",
        f"`{setting.pytest.flag}`" if setting.pytest else "–",
        "yes" if setting.per_model else "no",
    )


def _gate_rows() -> Iterable[tuple[str, str, str]]:
    for gate in gates_in_order():
        thresholds = ", ".join(f"`{name}`" for name in gate.thresholds)
        yield f"`{gate.name}`", _cell(gate.summary), thresholds or "–"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    for name, body in blocks().items():
        rewrite(DOCUMENT, name, body)
    rewrite(GATES_DOCUMENT, "thresholds", thresholds_of_gates())


if __name__ == "__main__":
    main()
