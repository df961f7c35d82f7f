"""The exit codes of the command line."""

from __future__ import annotations

USAGE_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143
"""128 and the number of SIGTERM, as shells report it (`core.process.Terminated`)."""

EXIT_CODES = {
    0: "no gate failed",
    1: "a gate failed, or an inspected file has an error in it",
    USAGE_ERROR: "usage, configuration or input error (reported before measuring where possible), "
    "or the report could not be written everywhere (after the verdicts have been shown)",
    3: "nothing failed, but something is inconclusive or unverified (only with --strict)",
    INTERRUPTED: "interrupted (Ctrl-C)",
    TERMINATED: "terminated (SIGTERM), as by a cancelled CI job; temporary files are removed",
}
"""What each exit code means, for help and documents."""
