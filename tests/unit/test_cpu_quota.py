"""The CPU limit of a container is found in either version of control groups."""

import math
from pathlib import Path

import pytest

from edgellm import _core, cpu


def tree(root: Path, groups: str, files: dict[str, str]) -> str:
    """A root folder with these files below sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups, encoding="ascii")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return str(root)


@pytest.mark.parametrize(
    ("groups", "files", "want"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/a/b\n", {"cpu.max": "max 1\n", "a/cpu.max": "5000 10000\n", "a/b/cpu.max": "9 10\n"}, 0.5),
        ("", {"cpu.max": "1 1\n"}, math.inf),
        (
            "4:memory:/m\n3:cpu,cpuacct:/d/x\n",
            {"cpu,cpuacct/d/x/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/d/x/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        (
            "3:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {"cpu.max": "1 0\n"}, math.inf),
        ("0::/\n", {"cpu.max": "nonsense"}, math.inf),
    ],
)
def test_quota_is_that_of_the_tightest_group(tmp_path, groups, files, want):
    assert cpu.quota(tree(tmp_path, groups, files)) == want


def test_no_control_groups_is_no_limit(tmp_path):
    assert cpu.quota(str(tmp_path)) == math.inf


@pytest.mark.parametrize(("quota", "want"), [(0.2, 1), (1.0, 1), (1.5, 2), (math.inf, 5), (7.0, 5)])
def test_threads_default_to_what_may_be_used(monkeypatch, quota, want):
    monkeypatch.setattr(_core, "cpu_count", lambda: 5)
    monkeypatch.setattr(cpu, "quota", lambda: quota)
    assert cpu.count() == want
