"""What the service costs, beside a bare handler that does the same work, and beside other servers.

python benchmarks/serving.py                          # a minute; clients and servers share the cores
python benchmarks/serving.py --cores 2                # where there are more: clients have theirs
python benchmarks/serving.py --text BUNDLE --text BUNDLE --tensor BUNDLE
benchmarks/serving_peers/install.sh /tmp/peers && python benchmarks/serving.py --only peers --peers /tmp/peers
python benchmarks/serving.py --only soak --soak 20 --text BUNDLE
python benchmarks/serving.py --text BUNDLE --peers /tmp/peers --write docs/serving.md    # all but soak

Bars: ready in 3 s; at least 0.6 of the yardstick's rate; p99 at most 3 times p50 at half load; idle CPU under
1%; 0.95 of the engine's tokens a second; 0.85 of the best offline rows a second; 0.95 of the capacity at
twice the load; more requests a second than the peers, with no larger p99.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from http_load import Result, closed, opened, run_on_time
from placement import split

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import serving_servers as servers  # noqa: E402
from serving_model import PIXELS, write_mlp  # noqa: E402
from serving_overload import WIDE, overload  # noqa: E402
from serving_report import command, say, write  # noqa: E402
from stalls import stalls  # noqa: E402

VALUES = [i / PIXELS for i in range(PIXELS)]
TENSOR = {"name": "pixels", "shape": [1, PIXELS], "datatype": "FP32", "data": VALUES}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
INFER = "/v2/models/digits-fp32/infer"
ROUNDS = 3
PARTS = ("ready", "bare", "streaming", "batching", "overload", "peers", "soak")


def main() -> None:
    """Print each figure beside its bar; what cannot be measured here says why."""
    chosen = _options()
    if chosen.cores:
        say(f"placement     {split(chosen.cores)}")
    for part in chosen.only or PARTS:
        if reason := _missing(part, chosen):
            say(f"{part:13} skipped: {reason}")
        else:
            _run(part, chosen)
    if chosen.write:
        write(chosen.write, command(), shared=not chosen.cores)


def _run(part: str, chosen: argparse.Namespace) -> None:
    if part == "ready":
        ready(_first(chosen.text))
    elif part == "bare":
        bare(chosen.seconds)
    elif part == "streaming":
        from serving_text import streaming

        streaming(chosen.text)
    elif part == "batching":
        batched(chosen.tensor, 4 * chosen.seconds)
    elif part == "overload":
        overload(chosen.seconds)
    elif part == "peers":
        peers(chosen.peers, chosen.seconds)
    else:
        from serving_soak import soak

        if not soak(chosen.soak, _first(chosen.text), chosen.pause):
            raise SystemExit("soak: something broke, grew or was kept")


def ready(text: Path | None) -> None:
    """From the command to the line that says what is served, the models loaded and run once."""
    with tempfile.TemporaryDirectory() as folder:
        write_mlp(Path(folder) / "digits")
        bundles = [Path(folder) / "digits", *([text] if text else [])]
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            with servers.ours(*bundles):
                times.append(time.perf_counter() - started)
    say(f"ready         {min(times):.2f} to {max(times):.2f} s, {len(bundles)} models (bar 3)")


def bare(seconds: float) -> None:
    """Beside the bare handler; then alone at half load, and idle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_mlp(path / "digits")
        with (
            servers.starlette(path / "model.onnx") as (url, _),
            servers.ours(path / "digits") as (ours, process),
        ):
            rates = compare(url, ours + INFER, seconds)
            half_load((url, ours + INFER), rates, 3 * seconds)
            idle(process)


def compare(url: str, served: str, seconds: float) -> tuple[float, float]:
    """Rates at 1, 8 and 32 clients, the best of interleaved rounds; both of them at 32."""
    yardstick = best = 0.0
    for clients in (1, 8, 32):
        urls = (url, served)
        pairs = [[asyncio.run(closed(each, BODY, clients, seconds)) for each in urls] for _ in range(ROUNDS)]
        yardstick, best = (max(result.rate for result in column) for column in zip(*pairs, strict=True))
        p99 = min(result.percentile(0.99) for _, result in pairs)
        say(
            f"{clients:3} clients   starlette {yardstick:6.0f}/s   modelpress {best:6.0f}/s   "
            f"ratio {best / yardstick:.2f} (bar 0.6)   p99 {p99:.1f} ms"
        )
    return yardstick, best


def half_load(urls: tuple[str, str], rates: tuple[float, float], seconds: float) -> None:
    """Latencies from the planned send times, of each at half of what it can do: the median of rounds.

    The client is on the same cores, so the bare handler's tail is what the machine itself makes of one; and
    how often it stops two programs for a while is said before.
    """
    say(f"machine       takes a core away {stalls()}")
    rounds = [
        [
            run_on_time(opened(url, BODY, rate / 2, seconds, connections=64))
            for url, rate in zip(urls, rates, strict=True)
        ]
        for _ in range(ROUNDS)
    ]
    for name, rate, results in zip(
        ("starlette", "modelpress"), rates, zip(*rounds, strict=True), strict=True
    ):
        typical = sorted(results, key=_tail)[ROUNDS // 2]
        say(
            f"half load     {name:10} {rate / 2:6.0f}/s   p50 {typical.percentile(0.5):.2f} ms   "
            f"p99 {typical.percentile(0.99):.2f} ms   ratio {_tail(typical):.1f} (bar 3)"
        )


def _tail(result: Result) -> float:
    return result.percentile(0.99) / result.percentile(0.5)


def idle(process: psutil.Process) -> None:
    """The share of one core that it takes to do nothing."""
    process.cpu_percent()
    time.sleep(3)
    say(f"idle          {process.cpu_percent():.1f}% of a core (bar 1)")


def peers(environment: Path, seconds: float) -> None:
    """Each server alone on the machine, over the same ONNX file, at 1, 8 and 32 clients."""
    native = json.dumps({"data": [VALUES]}).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_mlp(path / "digits")
        model = path / "model.onnx"
        with servers.ours(path / "digits") as (url, _):
            own = _rates("modelpress", url + INFER, BODY, seconds)
        for start, body in ((servers.litserve, BODY), (servers.mlserver, BODY), (servers.bentoml, native)):
            with start(environment, model) as (url, _):
                theirs = _rates(start.__name__, url, body, seconds)
            better = [a[0] > b[0] and a[1] <= b[1] for a, b in zip(own, theirs, strict=True)]
            verdict = " ".join("yes" if each else "no" for each in better)
            say(f"{start.__name__:13} modelpress has more requests/s and no larger p99: {verdict}")


def batched(bundles: Sequence[Path], seconds: float) -> None:
    """The batcher over a classifier whose rows cost more than a request each, and over `bundles`."""
    from serving_batching import batching

    with tempfile.TemporaryDirectory() as folder:
        for bundle in (write_mlp(Path(folder) / "wide", WIDE).path, *bundles):
            batching(bundle, seconds)


def _rates(name: str, url: str, body: bytes, seconds: float) -> list[tuple[float, float]]:
    """Requests a second and p99 in milliseconds at 1, 8 and 32 clients, each waiting for its answer."""
    found = []
    _warm(url, body)
    for clients in (1, 8, 32):
        result = asyncio.run(closed(url, body, clients, seconds))
        found.append((result.rate, result.percentile(0.99)))
    parts = [f"{rate:6.0f}/s p99 {p99:6.1f} ms" for rate, p99 in found]
    say(f"{name:13} " + "   ".join(parts))
    return found


def _warm(url: str, body: bytes) -> None:
    """Ports open before models are loaded."""
    for _ in range(100):
        if asyncio.run(closed(url, body, 1, 0.1)).statuses[200]:
            return
        time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def _first(folders: list[Path]) -> Path | None:
    """The text bundle of the parts that want one at most."""
    return folders[0] if folders else None


def _missing(part: str, chosen: argparse.Namespace) -> str | None:
    if part == "streaming" and not chosen.text:
        return "--text names no text bundle"
    if part == "peers" and not (chosen.peers and chosen.peers.is_dir()):
        return "--peers names no environment; make one with benchmarks/serving_peers/install.sh"
    if part == "soak" and not chosen.soak:
        return "--soak says no minutes"
    return None


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options.add_argument("--only", action="append", choices=PARTS)
    options.add_argument(
        "--text", type=Path, action="append", default=[], help="folder of a text bundle; may be repeated"
    )
    options.add_argument(
        "--tensor",
        type=Path,
        action="append",
        default=[],
        help="folder of a feed-forward bundle to batch; may be repeated",
    )
    options.add_argument("--peers", type=Path, help="environment of the other servers")
    options.add_argument("--write", type=Path, metavar="PAGE", help="a Markdown page to put all of it into")
    options.add_argument(
        "--cores", type=int, default=0, help="that servers have to themselves; clients get the others"
    )
    options.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    options.add_argument(
        "--pause", type=float, default=0.005, help="seconds between a soaking client's requests"
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
