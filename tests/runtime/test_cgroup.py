from pathlib import Path

import pytest

from runtime.cgroup import cores


def tree(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """A tree of groups and the list of a process's own; in names, `__` is `/`."""
    (folder / "own").write_text(own)
    for name, content in files.items():
        path = (
            folder / "cgroup" / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_max": "max 100000\n"}, None),
        # The tightest of all groups on the way counts.
        ("0::/a/b\n", {"a__cpu_max": "300000 100000\n", "a__b__cpu_max": "max 100000\n"}, 3.0),
        ("0::/a/b\n", {"a__cpu_max": "300000 100000\n", "a__b__cpu_max": "50000 100000\n"}, 0.5),
        # The host's path, in a container whose tree begins with its own group.
        ("0::/docker/abc\n", {"cpu_max": "200000 100000\n"}, 2.0),
        ("0::/../../b\n", {"cpu_max": "200000 100000\n"}, 2.0),
        # Version 1, alone or beside a version 2 without controllers.
        ("4:cpu:/\n", {"cpu__cpu_cfs_quota_us": "250000", "cpu__cpu_cfs_period_us": "100000"}, 2.5),
        ("4:cpu:/\n0::/\n", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, None),
        ("3:memory:/\n", {"memory__cpu_max": "100000 100000"}, None),
        ("", {"cpu_max": "100000 100000"}, None),
        ("0::/\n", {"cpu_max": "nonsense"}, None),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, own: str, files: dict[str, str], expected: float) -> None:
    assert cores(*tree(tmp_path, own, **files)) == expected


def test_controllers_that_are_mounted_together_are_one_folder(tmp_path: Path) -> None:
    root, own = tree(tmp_path, "4:cpu,cpuacct:/x\n")
    (root / "cpu,cpuacct" / "x").mkdir(parents=True)
    for name, value in (("quota", "100000"), ("period", "50000")):
        (root / "cpu,cpuacct" / "x" / f"cpu.cfs_{name}_us").write_text(value)
    assert cores(root, own) == 2


def test_without_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores(tmp_path / "none", tmp_path / "nothing") is None
