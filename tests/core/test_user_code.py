"""The line of a user's code that an error comes from."""

from __future__ import annotations

import importlib.util
import json
import sysconfig
import types
from pathlib import Path

import pytest

from ptqbench.core.names import nearest
from ptqbench.core.user_code import CodeLine, describe_error, innermost_line


def module(path: Path, code: str) -> types.ModuleType:
    path.write_text(code, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def error_of(function: object, *args: object) -> BaseException:
    with pytest.raises(Exception) as caught:
        function(*args)  # type: ignore[operator]
    return caught.value


def test_the_user_s_line_is_named_not_the_library_s(tmp_path: Path) -> None:
    nets = module(tmp_path / "nets.py", "import json\ndef make():\n    json.loads('{')\n")
    error = error_of(nets.make)
    place = f"{tmp_path / 'nets.py'}, line 3: json.loads('{{')"
    assert describe_error(error).endswith(f" at {place}")
    assert str(innermost_line(error, (Path(json.__file__).parent,))) == place
    line = innermost_line(error, ())
    assert line is not None and line.file.startswith(sysconfig.get_path("stdlib"))


def test_the_package_is_never_the_user_s_code(tmp_path: Path) -> None:
    nets = module(tmp_path / "nets.py", "def make(call):\n    call(1, [])\n")
    line = innermost_line(error_of(nets.make, nearest), ())
    assert line is not None and "ptqbench/core" not in line.file


def test_a_file_that_cannot_be_parsed(tmp_path: Path) -> None:
    error = error_of(module, tmp_path / "nets.py", "x = 1\ndef make(:\n")
    assert describe_error(error).startswith("SyntaxError: ")
    assert f" at {tmp_path / 'nets.py'}, line 2: def make(:" in describe_error(error)


def test_an_error_without_text_or_file() -> None:
    assert describe_error(KeyError()) == "KeyError"
    assert innermost_line(ValueError("x"), ()) is None
    code = compile("raise ValueError('a\\n b.')", "<string>", "exec")
    error = error_of(exec, code)
    assert describe_error(error).startswith("ValueError: a b at ")


def test_code_whose_file_name_is_its_text() -> None:
    """As `compile(text, text, "exec")` makes it."""
    text = "value = 1\n" * 1000 + "raise ValueError('x')"
    line = innermost_line(error_of(exec, compile(text, text, "exec")), ())
    assert line is not None and line.file == __file__


def test_a_line_whose_text_is_gone() -> None:
    assert str(CodeLine("gone.py", 3)) == "gone.py, line 3"
