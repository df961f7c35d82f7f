"""CPUs that a process may use, with made-up control groups and topologies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptqbench.core import cpu_count

V2 = "31 23 0:28 {root} {point} rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
DISK = "36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw,cpu=odd"


class Groups:
    """A file system with control groups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def process(self, groups: str, *mounts: str) -> None:
        (self.root / "proc/self/cgroup").write_text(groups + "\n")
        (self.root / "proc/self/mountinfo").write_text("\n".join((DISK, *mounts)) + "\n")

    def v2(self, folder: str, content: str) -> None:
        path = self.root / folder.lstrip("/") / "cpu.max"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")

    def v1(self, folder: str, quota: int, period: int = 100_000) -> None:
        path = self.root / folder.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (path / "cpu.cfs_period_us").write_text(f"{period}\n")

    @property
    def quota(self) -> float | None:
        return cpu_count.read_quota(self.root)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def mount(line: str, point: str, root: str = "/") -> str:
    return line.format(root=root, point=point)


def test_a_container_sees_its_group_as_the_root(groups: Groups) -> None:
    groups.process("0::/", mount(V2, "/sys/fs/cgroup"))
    groups.v2("/sys/fs/cgroup", "200000 100000")
    assert groups.quota == 2


def test_without_limit_there_is_no_quota(groups: Groups) -> None:
    groups.process("0::/user.slice", mount(V2, "/sys/fs/cgroup"))
    assert groups.quota is None
    groups.v2("/sys/fs/cgroup/user.slice", "max 100000")
    assert groups.quota is None


def test_the_tightest_of_the_enclosing_groups_applies(groups: Groups) -> None:
    groups.process("0::/kubepods/pod1/container2", mount(V2, "/sys/fs/cgroup"))
    groups.v2("/sys/fs/cgroup/kubepods", "1600000 100000")
    groups.v2("/sys/fs/cgroup/kubepods/pod1", "150000 100000")
    groups.v2("/sys/fs/cgroup/kubepods/pod1/container2", "max 100000")
    groups.v2("/sys/fs/cgroup/kubepods/pod9", "50000 100000")
    assert groups.quota == 1.5


def test_version_1_in_a_container_that_names_the_host_s_path(groups: Groups) -> None:
    point = "/sys/fs/cgroup/cpu,cpuacct"
    groups.process(
        "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab",
        mount(V1, point, root="/docker/ab"),
        MEMORY,
    )
    groups.v1(point, 250_000, 50_000)
    assert groups.quota == 5


def test_version_1_with_nested_groups_and_no_limit_above(groups: Groups) -> None:
    groups.process("4:cpu,cpuacct:/slurm/job", mount(V1, "/sys/fs/cgroup/cpu"))
    groups.v1("/sys/fs/cgroup/cpu", -1)
    groups.v1("/sys/fs/cgroup/cpu/slurm", -1)
    assert groups.quota is None
    groups.v1("/sys/fs/cgroup/cpu/slurm/job", 400_000)
    assert groups.quota == 4


def test_both_versions_side_by_side(groups: Groups) -> None:
    mounts = (mount(V2, "/sys/fs/cgroup/unified"), mount(V1, "/sys/fs/cgroup/cpu"))
    groups.process("1:cpu:/a\n0::/b", *mounts)
    groups.v1("/sys/fs/cgroup/cpu/a", 300_000)
    assert groups.quota == 3


@pytest.mark.parametrize("path", ["/../elsewhere", "/out/of/sight"])
def test_a_path_out_of_sight_ends_at_the_mount_point(groups: Groups, path: str) -> None:
    groups.process(f"0::{path}", mount(V2, "/sys/fs/cgroup", root="/"))
    groups.v2("/sys/fs/cgroup", "100000 100000")
    assert groups.quota == 1


def test_a_mount_point_with_a_blank(groups: Groups) -> None:
    groups.process("0::/", mount(V2, r"/my\040groups"))
    groups.v2("/my groups", "300000 100000")
    assert groups.quota == 3


@pytest.mark.parametrize("content", ["", "max", "x y", "200000", "200000 0", "-1 100000"])
def test_what_cannot_be_read_is_no_quota(groups: Groups, content: str) -> None:
    groups.process("0::/", mount(V2, "/sys/fs/cgroup"))
    groups.v2("/sys/fs/cgroup", content)
    assert groups.quota is None


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert cpu_count.read_quota(tmp_path) is None


Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, groups: Groups) -> Iterator[Machine]:
    """A machine with two packages of two cores of two hardware threads."""
    functions = (cpu_count.usable_cores, cpu_count.physical_cores, cpu_count.cpu_quota)
    for cpu in range(8):
        folder = groups.root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu // 4}\n")
        (folder / "core_id").write_text(f"{cpu // 2 % 2}\n")

    def describe(affinity: set[int], quota: str = "max") -> None:
        for function in functions:
            function.cache_clear()
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: affinity, raising=False)
        groups.process("0::/", mount(V2, "/sys/fs/cgroup"))
        groups.v2("/sys/fs/cgroup", f"{quota} 100000")

    monkeypatch.setattr(cpu_count, "_ROOT", groups.root)
    yield describe
    for function in functions:
        function.cache_clear()


@pytest.mark.parametrize(
    ("affinity", "quota", "usable", "physical", "reported"),
    [
        (set(range(8)), "max", 8, 4, None),
        ({0, 1, 2}, "max", 3, 2, None),
        ({0, 4}, "max", 2, 2, None),
        (set(range(8)), "200000", 2, 2, 2.0),
        (set(range(8)), "250000", 3, 2, 2.5),
        (set(range(8)), "600000", 6, 4, 6.0),
        ({0, 1}, "150000", 2, 1, 1.5),
        ({0, 1, 2, 3}, "50000", 1, 1, 0.5),
        ({0, 1}, "800000", 2, 1, None),  # looser than the affinity
    ],
)
def test_affinity_and_quota_together(
    machine: Machine,
    affinity: set[int],
    quota: str,
    usable: int,
    physical: int,
    reported: float | None,
) -> None:
    machine(affinity, quota)
    assert cpu_count.usable_cores() == usable
    assert cpu_count.physical_cores() == physical
    assert cpu_count.cpu_quota() == reported


def test_each_cpu_counts_where_the_topology_is_not_known(machine: Machine) -> None:
    machine({0, 1, 99})
    assert cpu_count.physical_cores() == 3


def test_this_machine_has_cores() -> None:
    assert 1 <= cpu_count.physical_cores() <= cpu_count.usable_cores() <= (os.cpu_count() or 1)
