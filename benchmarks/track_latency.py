"""Save the latency of the models that `ptqbench run` has just judged; the last part of `bench`.

python benchmarks/track_latency.py [options of `ptqbench run`]
"""

from __future__ import annotations

import subprocess
import sys

from ptqbench.cli.parser import build_parser

TRACKED = ("models", "backend", "weights", "data")
"""Options of `ptqbench run` that the plugin has as well."""

IRRELEVANT = (
    *("json", "strict", "timings", "artifacts", "cache_dir", "threshold", "max_bytes"),
    *("quiet", "resume", "isolate", "time_limit", "workers"),
)
"""Options that change nothing of what is timed."""


def pytest_arguments(options: list[str]) -> list[str] | None:
    """Arguments for pytest; None if an option of `ptqbench run` changes what is timed."""
    parser = build_parser()
    args = parser.parse_args(["run", *options])
    bare = parser.parse_args(["run"])
    for name, value in vars(args).items():
        if name not in (*TRACKED, *IRRELEVANT, "command") and value != getattr(bare, name):
            return None
    arguments = ["benchmarks/test_latency.py", "--benchmark-autosave"]
    for option, names in (("models", args.models), ("backends", args.backend or [])):
        arguments += [f"--ptqbench-{option}={name}" for name in names]
    for option in ("weights", "data"):
        if getattr(args, option) is not None:
            arguments.append(f"--ptqbench-{option}={getattr(args, option)}")
    return arguments


def main() -> int:
    arguments = pytest_arguments(sys.argv[1:])
    if arguments is None:
        print(
            "Latency is tracked under the project's settings only, and options change them here: "
            "nothing was saved."
        )
        return 0
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
