import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runtime.memory import available_memory, give_back_freed


def group(folder: Path, limit: str, current: int, inactive: int) -> tuple[Path, Path]:
    """A control group of version 2 at the top of a tree, and the list that says that a process is in it."""
    (folder / "own").write_text("0::/\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return folder, folder / "own"


def test_a_control_groups_limit_counts_and_its_idle_files_do_not(tmp_path: Path) -> None:
    assert available_memory(*group(tmp_path, "1000000", 600_000, 100_000)) == 500_000
    assert available_memory(*group(tmp_path, "1000000", 1_100_000, 0)) == 0


def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    root, own = group(tmp_path, "1000000", 600_000, 0)
    own.write_text("0::/inner\n")
    (root / "inner").mkdir()
    group(root / "inner", "max", 0, 0)
    assert available_memory(root, own) == 400_000


def test_a_group_of_version_1_counts(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:memory:/\n4:cpu:/other\n")
    (tmp_path / "memory").mkdir()
    for name, content in (
        ("limit_in_bytes", "900000\n"),
        ("usage_in_bytes", "700000\n"),
        ("stat", "cache 9\ntotal_inactive_file 50000\n"),
    ):
        (tmp_path / "memory" / f"memory.{name}").write_text(content)
    assert available_memory(tmp_path, tmp_path / "own") == 250_000


@pytest.mark.parametrize("limit", ["max", "not a number", "9" * 18])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, limit: str) -> None:
    free = psutil.virtual_memory().available
    assert available_memory(*group(tmp_path, limit, 0, 0)) == pytest.approx(free, rel=0.2)


def test_without_a_control_group_it_is_the_machines(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path / "nothing") > 0


def test_the_processs_own_limit_counts() -> None:
    """In a process of its own, whose address space is limited to 100 MiB more than it has."""
    code = """
import psutil, resource
from runtime.memory import available_memory
limit = psutil.Process().memory_info().vms + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(available_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 100 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_goes_back_to_the_operating_system() -> None:
    # Each too small for a mapping of its own; the last one stays, so the heap cannot shrink from its end.
    blocks = [bytearray(b"x") * 100_000 for _ in range(1000)]
    del blocks[:-1]
    before = psutil.Process().memory_info().rss
    give_back_freed()
    assert psutil.Process().memory_info().rss < before - 50_000_000
