"""The command line as a user meets it: real processes, exit codes, one line for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def modelpress(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "modelpress", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    program = "import sys, modelpress\ntry:\n modelpress.main()\nfinally:\n print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    for command in ("demo", "compress", "list", "show", "report", "train", "zoo", "serve", "loadtest"):
        assert command in done.stdout
    for heavy in ("torch", "numpy", "onnxruntime", "bentoml", "pydantic", "aiohttp"):
        assert f"'{heavy}'" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("compress", "bad.yaml"), "bad.yaml:1: unknown key 'modle'; did you mean 'model'?"),
        (("compress", "zoo.yaml"), "did you mean 'lenet5'?"),
        (("compress", "onnx.yaml"), "noise.onnx"),
        (("compress", "missing.yaml"), "gone.onnx"),
        (("show", "nothing-here"), "no bundle 'nothing-here'"),
        (("show", "long" * 100), "/manifest.json: no place on this disk: File name too long"),
        (("train", "lenet6"), "did you mean 'lenet5'?"),
        (("zoo", "lenet6"), "did you mean 'lenet5'?"),
        (("serve", "nothing-here", "--port", "0"), "no bundle 'nothing-here'"),
        (("loadtest", "nowhere.yaml", "--url", "http://127.0.0.1:1"), "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "bad.yaml").write_text("modle: zoo:lenet5\n")
    (tmp_path / "zoo.yaml").write_text("model: zoo:lenet\n")
    (tmp_path / "onnx.yaml").write_text("model: onnx:noise.onnx\n")
    (tmp_path / "missing.yaml").write_text("model: onnx:gone.onnx\n")
    (tmp_path / "noise.onnx").write_bytes(b"this is not a graph")
    done = modelpress(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_what_was_published_before_a_recipe_failed_is_printed(tmp_path: Path) -> None:
    """And a cache that cannot be is one line too."""
    (tmp_path / "own.py").write_text(
        "import torch\ndef good():\n    return torch.nn.Linear(4, 2)\ndef bad():\n    raise OSError('no')\n"
    )
    x = np.random.default_rng(0).standard_normal((20, 4))
    np.savez(tmp_path / "data.npz", x=x, labels=np.arange(20) % 2)
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(f"model: py:own:{name}\ndata: data.npz\n")
    homes = {"MODELPRESS_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "bento")}
    done = modelpress("compress", "good.yaml", "bad.yaml", "--json", cwd=tmp_path, **homes)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: py:own:bad failed: OSError: no"
    assert [row["passed"] for row in json.loads(done.stdout)] == [True]
    (tmp_path / "out" / "good-fp32").mkdir(parents=True)
    (tmp_path / "out" / "good-fp32" / "mine").touch()
    done = modelpress("compress", "good.yaml", "--json", "--out", "out", cwd=tmp_path, **homes)
    assert "out/good-fp32: stands there and is no bundle" in done.stderr.splitlines()[-1]
    assert json.loads(done.stdout)[0]["tag"].startswith("good-fp32:")
    homes["MODELPRESS_HOME"] = str(tmp_path / "own.py" / "home")
    done = modelpress("compress", "good.yaml", cwd=tmp_path, **homes)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "own.py/home/stages: cannot be written: Not a directory" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder of Linux")
def test_a_folder_that_cannot_be_is_told_before_the_work(tmp_path: Path) -> None:
    """Permissions do not tell of this one."""
    (tmp_path / "gone.yaml").write_text("model: onnx:gone.onnx\n")
    done = modelpress("compress", "gone.yaml", "--out", "/proc/out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: /proc: cannot be written to; choose another --out\n")


def test_a_copy_that_fails_names_the_place_that_is_full(tmp_path: Path) -> None:
    program = (
        "import resource, shutil, modelpress\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "modelpress.app = lambda: shutil.copyfile('long', 'copy')\n"
        "modelpress.main()"
    )
    (tmp_path / "long").write_bytes(bytes(5000))
    command, options = [sys.executable, "-c", program], {"capture_output": True, "text": True}
    done = subprocess.run(command, cwd=tmp_path, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 2
    assert done.stderr.startswith("error: copy: cannot be written: File too large")


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """No file may grow past 16 KB in this process, which fails as a full disk does, half-way into a file."""
    limited = (
        "import resource, modelpress\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))\n"
        "modelpress.main()"
    )
    (tmp_path / "recipe.yaml").write_text("model: zoo:lenet5\n")
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-c", limited, "compress", "recipe.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MODELPRESS_HOME": str(home)},
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in home.rglob("*") if path.is_file() and path.stat().st_size >= 16384]
