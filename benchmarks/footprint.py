"""How light the product is: start-up times, torch's absence from the server, and the base install's size.

python benchmarks/footprint.py            # needs a published bundle, as recipes/digits-int8.yaml makes
python benchmarks/footprint.py --install  # also makes a fresh environment (minutes)
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = 7


def main() -> None:
    """Print each figure beside its bar."""
    options = argparse.ArgumentParser()
    options.add_argument("--bundle", default="lenet5-int8-static")
    options.add_argument("--install", action="store_true")
    chosen = options.parse_args()
    helps = [seconds(["--help"]) for _ in range(RUNS)]
    print(f"modelpress --help      {statistics.median(helps):.2f} s   (bar 0.3)")
    readies, torch_seen = zip(*(serve(chosen.bundle) for _ in range(RUNS)), strict=True)
    print(f"server ready           {statistics.median(readies):.2f} s   (bar 3)")
    print(f"torch in its process   {'yes' if any(torch_seen) else 'no'}       (bar: no)")
    if chosen.install:
        print(f"base install           {install():.0f} MB  (bar 450)")


def seconds(arguments: list[str]) -> float:
    """Wall time of one command."""
    start = time.perf_counter()
    subprocess.run([modelpress(), *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def serve(bundle: str) -> tuple[float, bool]:
    """Seconds until the server says that it is ready, and whether its memory maps mention torch."""
    start = time.perf_counter()
    command = [modelpress(), "serve", bundle, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            json.loads(server.stdout.readline())
            ready = time.perf_counter() - start
            maps = Path(f"/proc/{server.pid}/maps").read_text()
        finally:
            server.terminate()
    return ready, "torch" in maps


def install() -> float:
    """Megabytes of a fresh environment with the base install."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/pip", "install", "--quiet", "-c", REPOSITORY / "constraints.txt", REPOSITORY]
        subprocess.run(pip, check=True)
        return sum(path.lstat().st_size for path in Path(folder).rglob("*")) / 1e6


def modelpress() -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).parent / "modelpress")


if __name__ == "__main__":
    main()
