"""What torch raises in a step becomes a sentence; what ptqbench raises stays a defect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ptqbench
from ptqbench.core.step_errors import reason_of, step
from ptqbench.errors import UserError

ADVICE = "Look at {module}."


def raising(error: str, file: Path) -> Callable[[], object]:
    """A function that raises an error in a file which need not exist."""
    names: dict[str, Any] = {}
    exec(compile(f"def run():\n    raise {error}", str(file), "exec"), names)
    function: Callable[[], object] = names["run"]
    return function


PACKAGE = Path(ptqbench.__file__).parent / "quantization" / "fx.py"


@pytest.mark.parametrize("error", ["ValueError('bad')", "KeyError('x')", "AssertionError()"])
def test_errors_of_others_become_sentences(error: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, step("Conversion of net", ADVICE):
        raising(error, tmp_path / "nets.py")()
    message = str(caught.value)
    assert message.startswith("Conversion of net stops at ")  # the line of this file
    assert f" ({error.partition('(')[0]}: " in message
    assert message.endswith("). Look at the module that is to blame.")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", ["ValueError('bad')", "KeyError('x')", "AssertionError()"])
def test_errors_of_ptqbench_pass(error: str) -> None:
    with pytest.raises((ValueError, KeyError, AssertionError)), step("Conversion", ADVICE):
        raising(error, PACKAGE)()


def test_operators_in_c_raise_in_the_frame_of_their_caller() -> None:
    with pytest.raises(UserError, match="RuntimeError: no kernel"), step("Conversion", ADVICE):
        raising("RuntimeError('no kernel. Details')", PACKAGE)()


@pytest.mark.parametrize("error", ["UserError('known')", "OSError(28, 'full')"])
def test_what_is_a_sentence_already_stays_it(error: str, tmp_path: Path) -> None:
    name = f"__import__('ptqbench').{error}" if error.startswith("User") else error
    with pytest.raises((UserError, OSError), match=r"known|full"), step("Conversion", ADVICE):
        raising(name, tmp_path / "nets.py")()


def test_the_reason_is_that_of_torchscript() -> None:
    text = (
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n  ...\n"
        "RuntimeError: quantized::add: operands differ. Report a bug."
    )
    assert reason_of(RuntimeError(text)) == "quantized::add: operands differ"
    assert reason_of(ValueError()) == "ValueError"
