"""CPUs that this process may use: affinity, container quotas and hardware threads.

A container started with ``--cpus=2`` still sees every CPU of the machine, and so do affinity
masks; only the CPU controller of its control groups (version 1 or 2) holds it to two.
loky's ``cpu_count`` reads that quota for the outermost group alone, rounds it up, and takes
longer to import than ``ptqbench --help`` may run; so the few files are read here.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@functools.cache
def usable_cores() -> int:
    """Count the logical CPUs that this process may use; what decodes and renders runs on them.

    A fraction of a CPU in the quota counts as one more.
    """
    return _capped(len(_affinity()), cpu_quota(), math.ceil)


@functools.cache
def physical_cores() -> int:
    """Count the physical cores that this process may use; what is timed runs on them.

    Hardware threads of one core share its arithmetic units. A fraction of a CPU in the quota
    does not count: a thread too many is throttled in the middle of a measurement.
    """
    return _capped(_count_cores(_affinity()), cpu_quota(), math.floor)


@functools.cache
def cpu_quota() -> float | None:
    """Read how many CPUs' time a container's quota allows; None if that is not fewer than there.

    The tightest quota of all enclosing control groups applies.
    """
    quota = read_quota(_ROOT)
    return quota if quota is not None and quota < len(_affinity()) else None


def read_quota(root: Path) -> float | None:
    """Read the tightest CPU quota of the control groups of this process.

    Args:
        root: Of the file system that ``proc`` is mounted in.

    Returns:
        CPUs, or None without a quota.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    controllers = [mount for line in mounts if (mount := _controller(line))]
    quotas = [
        quota
        for line in groups
        for folder in _folders(line, controllers)
        if (quota := _quota_in(root / folder.relative_to("/"))) is not None
    ]
    return min(quotas, default=None)


@dataclass(frozen=True)
class _Controller:
    """Where a control group file system with CPU quotas is mounted.

    Attributes:
        version: 1 or 2.
        root: The group that the mount point shows.
        point: The mount point.
    """

    version: int
    root: PurePosixPath
    point: PurePosixPath


def _controller(line: str) -> _Controller | None:
    """Read a line of mountinfo: ``36 35 98:0 ROOT POINT OPTIONS … - TYPE DEVICE OPTIONS``."""
    mount, _, kind = line.partition(" - ")
    fields, described = mount.split(), kind.split()
    if len(fields) < 5 or not described:
        return None
    has_quotas = "cpu" in described[-1].split(",")
    if described[0] == "cgroup2" or (described[0] == "cgroup" and has_quotas):
        version = 2 if described[0] == "cgroup2" else 1
        return _Controller(version, _unescaped(fields[3]), _unescaped(fields[4]))
    return None


def _unescaped(text: str) -> PurePosixPath:
    return PurePosixPath(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text))


def _folders(line: str, mounts: Sequence[_Controller]) -> Iterator[PurePosixPath]:
    """Yield the folders of a process's group and all enclosing ones, by a line of its ``cgroup``.

    ``0::PATH`` is version 2, ``4:cpu,cpuacct:PATH`` version 1. Inside a container the path may be
    that of the host, of which the mount point shows a part; what is above that is out of sight.
    """
    number, _, rest = line.partition(":")
    names, _, path = rest.partition(":")
    version = 2 if number == "0" and not names else 1
    if version == 1 and "cpu" not in names.split(","):
        return
    for mount in mounts:
        if mount.version == version:
            group = PurePosixPath(path)
            below = group.relative_to(mount.root) if group.is_relative_to(mount.root) else None
            folder = mount.point if below is None or ".." in below.parts else mount.point / below
            while folder != mount.point:
                yield folder
                folder = folder.parent
            yield mount.point


def _quota_in(folder: Path) -> float | None:
    """Read the quota of one control group, in CPUs; None if it has none."""
    try:
        if (folder / "cpu.max").exists():
            amount, period = (folder / "cpu.max").read_text().split()
        else:
            amount = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        quota = int(amount) / int(period)  # "max" is not a number
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return quota if quota > 0 else None


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _count_cores(cpus: frozenset[int]) -> int:
    """Count the physical cores that some logical CPUs belong to; each counts if that is unknown."""
    cores = set()
    for cpu in cpus:
        topology = _ROOT / f"sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            package = (topology / "physical_package_id").read_text()
            cores.add((package, (topology / "core_id").read_text()))
        except OSError:
            return len(cpus)
    return len(cores)


def _capped(count: int, quota: float | None, rounded: Callable[[float], int]) -> int:
    return count if quota is None else max(1, min(count, rounded(quota)))
