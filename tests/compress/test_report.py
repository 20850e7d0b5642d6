"""The report as a reader's browser gets it: one well-formed page, whose figures are the manifests'."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compress.errors import OutputError
from compress.pipeline import settings
from compress.recipe import parse_recipe
from compress.report import write_report
from compress.reporting.tables import recipe
from runtime.errors import ModelpressError
from runtime.manifest import (
    Evidence,
    FeedForwardGraph,
    Interval,
    Latency,
    Lineage,
    Manifest,
    Provenance,
    Quality,
    Sample,
    Signature,
    StepRecord,
)
from tests.paths import RECIPES

VOID = {"meta", "br", "img", "input", "link", "hr"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
HOSTILE = "</pre><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&\"'{{ 7*7 }}"
PROMPT, COMPLETION = "def read(path):\n", "    with open(path) as file:\n        return file.read()\n"


class Page(HTMLParser):
    """A page's elements and texts; it refuses what is not properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(text for texts in self.words.values() for text in texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self.open[-1] if self.open else "", []).append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def quality(drop: float = 0.008, low: float = 0.005, high: float = 0.012, **changes: Any) -> Quality:
    perplexity: dict[str, Any] = {
        "metric": "perplexity",
        "higher_is_better": False,
        "value": 25.123,
        "interval": Interval(low=24.5, high=25.9),
        "baseline": 24.924,
        "drop": drop,
        "drop_interval": Interval(low=low, high=high),
        "examples": 512,
    }
    return Quality(**(perplexity | changes))


def latency(
    workload: str = "decode 1", speedup: float = 1.31, low: float = 1.22, high: float = 1.4
) -> Latency:
    return Latency(
        workload=workload,
        median_ms=1.468,
        p90_ms=1.777,
        baseline_median_ms=1.468 * speedup,
        speedup=speedup,
        speedup_interval=Interval(low=low, high=high),
        runs=15,
    )


def evidence(**changes: Any) -> Evidence:
    complete: dict[str, Any] = {
        "size_bytes": 3_270_000,
        "baseline_size_bytes": 16_700_000,
        "quality": quality(),
        "latency": (latency(),),
        "samples": (Sample(input=PROMPT, output=COMPLETION, baseline=COMPLETION),),
        "machine": {"cpu": "Some CPU", "cores": 2},
    }
    return Evidence(**(complete | changes))


def manifest(variant: str = "int4", measured: Evidence | None = None, **changes: Any) -> Manifest:
    step = StepRecord(method="quantize", config={"method": "quantize", "scheme": variant, "group_size": 32})
    made = (StepRecord(method="source"), StepRecord(method="export"))
    content: dict[str, Any] = {
        "name": "gpt-mini",
        "variant": variant,
        "task": "text-generation",
        "signature": Signature(inputs=(), outputs=()),
        "graph": FeedForwardGraph(),
        "lineage": Lineage(source="zoo:gpt-mini", steps=made if variant == "fp32" else (*made, step)),
        "evidence": measured,
        "provenance": Provenance(versions={"onnxruntime": "1.31.1"}, seed=7, data_fingerprint="abc123"),
    }
    return Manifest(**(content | changes)).sealed()


def baseline() -> Manifest:
    level = quality(0.0, 0.0, 0.0, value=24.924)
    return manifest(
        "fp32",
        evidence(size_bytes=16_700_000, quality=level, latency=(latency(speedup=1, low=0.97, high=1.02),)),
    )


def load_test(
    p50: float = 12.3, p99: float | None = 45.6, streams: bool = True, **changes: Any
) -> dict[str, Any]:
    def distribution(low: float, high: float | None) -> dict[str, Any]:
        percentiles = {
            "p50": {"value": low, "samples": 80, "upper_bound": low + 1},
            "p99": {"value": high, "samples": 80, "upper_bound": high},
        }
        return {"samples": 80, "mean": low, "min": low, "max": high or low, "percentiles": percentiles}

    summary = {
        "requests": 80,
        "failed": 3,
        "throughput_rps": 19.5,
        "tokens_per_s": 88.5,
        "latency_ms": distribution(p50, p99),
        "ttft_ms": distribution(3.21, 6.54) if streams else None,
    }
    result = {"outcome": "pass", "invalid": [], "summary": summary, "generator": {"offered_rps": 20.0}}
    return result | changes


def report(folder: Path, *manifests: Manifest, served: dict[str, str] | None = None) -> Page:
    """The page on `manifests`; `served` are the texts of load-test results by tag."""
    for tag, text in (served or {}).items():
        (folder / f"{tag}.json").write_text(text)
    write_report(manifests, folder / "report.html", folder if served is not None else None)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_one_page_holds_every_bundle_and_loads_nothing(tmp_path: Path) -> None:
    bundles = [baseline(), manifest(measured=evidence()), manifest("int8", evidence(), name="lenet5")]
    page = report(tmp_path, *bundles)
    for bundle in bundles:
        assert bundle.tag in page.text
        assert bundle.version in page.text
    targets = [value for _, attrs in page.elements for name, value in attrs.items() if name in LOADING]
    assert targets == ["#model-1", "#model-2"]
    assert page.count("script") == page.count("link") == page.count("img") == 0
    style = "".join(page.words["style"])
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_the_headline_states_the_smallest_tolerable_variant(tmp_path: Path) -> None:
    worse = manifest("int2", evidence(size_bytes=2_000_000, quality=quality(0.4, 0.3, 0.5)))
    page = report(tmp_path, baseline(), worse, manifest(measured=evidence()))
    assert (
        "gpt-mini-int4: 5.1x smaller, perplexity 0.80% worse (95% interval 0.50 to 1.20% worse), "
        "1.31x faster at decode 1 (95% interval 1.22x to 1.40x)."
    ) in page.text


def test_the_headline_admits_what_got_slower(tmp_path: Path) -> None:
    slow = (latency(), latency("prefill 128", 0.82, 0.76, 0.89))
    page = report(tmp_path, manifest(measured=evidence(latency=slow)))
    assert "slower at prefill 128, 0.82x the baseline's speed (95% interval 0.76x to 0.89x)." in page.text
    assert {"worse", "slower at prefill 128"} <= set(page.words["span"])


def test_the_headline_admits_that_no_variant_is_tolerable(tmp_path: Path) -> None:
    page = report(tmp_path, manifest(measured=evidence(quality=quality(0.4, 0.3, 0.5))))
    assert "perplexity 40.00% worse" in page.text
    assert "No variant stays within" in page.text


def test_noise_is_not_called_a_difference(tmp_path: Path) -> None:
    same = evidence(
        quality=quality(0.001, -0.002, 0.004), latency=(latency(speedup=0.98, low=0.9, high=1.1),)
    )
    page = report(tmp_path, manifest(measured=same))
    assert "perplexity 0.10% worse, within noise (95% interval 0.20% better to 0.40% worse)" in page.text
    assert "speed at decode 1 within noise, 0.98x (95% interval 0.90x to 1.10x)" in page.text
    assert "worse" not in page.words.get("span", [])


def test_a_score_is_counted_in_points(tmp_path: Path) -> None:
    accuracy = quality(-0.0028, -0.0083, 0.0, metric="accuracy", higher_is_better=True, value=0.9806)
    page = report(tmp_path, manifest("int8", evidence(quality=accuracy), name="lenet5"))
    assert "accuracy 0.28 points better" in page.text
    assert "-0.28 points" in page.words["td"]
    assert "0.9806" in page.words["td"]


def test_the_tables_hold_the_manifests_figures(tmp_path: Path) -> None:
    cells = report(tmp_path, baseline(), manifest(measured=evidence())).words["td"]
    for figure in ("3.27 MB", "5.11x", "25.12", "[24.50, 25.90]", "24.92", "+0.80%", "[+0.50, +1.20]", "512"):
        assert figure in cells
    for figure in ("decode 1", "1.47", "1.78", "1.92", "1.31x", "[1.22, 1.40]", "15"):
        assert figure in cells


def test_every_metric_of_the_same_answers_has_a_row(tmp_path: Path) -> None:
    scores = {"higher_is_better": True, "interval": Interval(low=0.2, high=0.6)}
    bleu = quality(0.01, value=0.2512, baseline=0.2612, metric="bleu", **scores)
    rouge = quality(0.02, value=0.5308, baseline=0.5508, metric="rouge-l", **scores)
    measured = evidence(quality=bleu, also=(rouge,))
    page = report(tmp_path, manifest(measured=measured))
    cells = page.words["td"]
    rows = [cells[cells.index(metric) :][:4] for metric in ("bleu", "rouge-l")]
    assert [(row[1], row[3]) for row in rows] == [("0.2512", "0.2612"), ("0.5308", "0.5508")]
    assert "Drop in quality: bleu" in page.words["title"]
    assert "also" not in evidence().model_dump()
    assert Evidence.model_validate_json(measured.model_dump_json()) == measured


def test_bars_are_as_long_as_their_times(tmp_path: Path) -> None:
    fast, slow = latency(speedup=2, low=1.9, high=2.1), latency(speedup=1, low=0.9, high=1.1)
    slow = slow.model_copy(update={"median_ms": 3 * fast.median_ms})
    page = report(
        tmp_path, manifest("a", evidence(latency=(fast,))), manifest("b", evidence(latency=(slow,)))
    )
    widths = [float(attrs["width"] or 0) for tag, attrs in page.elements if tag == "rect"]
    assert widths[1] / widths[0] == pytest.approx(3, rel=0.01)


def test_every_kind_of_plot_is_there(tmp_path: Path) -> None:
    bundles = [baseline(), manifest(measured=evidence())]
    page = report(tmp_path, *bundles, served={bundle.tag: json.dumps(load_test()) for bundle in bundles})
    assert page.words["title"][1:] == [
        "perplexity against size",
        "Drop in quality: perplexity",
        "Latency in process: decode 1",
        "Served latency",
        "Served time to first token",
    ]
    assert page.text.count("p50 12.3, p99 45.6 ms at 20/s") == 2
    assert page.text.count("p50 3.21, p99 6.54 ms at 20/s") == 2
    for figure in ("19.5", "3 of 80", "88.5"):
        assert figure in page.words["td"]


def test_names_of_points_do_not_cover_each_other(tmp_path: Path) -> None:
    alike = [manifest(f"variant-{n}", evidence(size_bytes=3_000_000 + n * 1000)) for n in range(5)]
    page = report(tmp_path, *alike)
    scatter = [attrs for tag, attrs in page.elements if tag == "text" and attrs["class"] == "name"][:5]
    heights = sorted(float(attrs["y"] or 0) for attrs in scatter)
    sides = {(attrs["x"], attrs["y"]) for attrs in scatter}
    assert len(sides) == 5
    assert heights[-1] - heights[0] > 12


def test_without_the_baselines_bundle_the_variants_say_what_it_was(tmp_path: Path) -> None:
    page = report(tmp_path, manifest(measured=evidence()))
    assert page.words["text"].count("baseline") == 3
    assert "ring" in [attrs.get("class") for tag, attrs in page.elements if tag == "circle"]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    sample = Sample(input=HOSTILE, output=HOSTILE + "x", baseline=HOSTILE)
    hostile = evidence(
        samples=(sample,),
        machine={HOSTILE: HOSTILE},
        quality=quality(metric=HOSTILE),
        latency=(latency(HOSTILE),),
    )
    served = json.dumps(load_test(outcome=HOSTILE, invalid=[HOSTILE]))
    page = report(tmp_path, manifest(measured=hostile), served={"gpt-mini-int4": served})
    assert page.count("script") == page.count("img") == 0
    assert "\n" + HOSTILE in page.words["pre"]
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


@pytest.mark.parametrize(
    ("output", "marked", "verdict"),
    [
        (COMPLETION, None, "the same as the baseline's"),
        ("    with open(path, 'r') as f:\n", ",", "differs after 18 characters"),
        ("    lines = []\n", "lines", "differs after 4 characters"),
        ("return 1\n", "return", "differs from the start"),
        (COMPLETION[:10], "ends here", "differs after 10 characters"),
        (COMPLETION + "\n\n\nclass Reader:", "\n\n\nclass", f"differs after {len(COMPLETION)} characters"),
    ],
)
def test_the_first_difference_is_marked(
    tmp_path: Path, output: str, marked: str | None, verdict: str
) -> None:
    sample = Sample(input=PROMPT, output=output, baseline=COMPLETION)
    page = report(tmp_path, manifest(measured=evidence(samples=(sample,))))
    assert page.words.get("mark") == ([marked] if marked else None)
    assert verdict in page.words["small"]
    shown = "".join(page.words["pre"] + page.words.get("mark", []))
    assert PROMPT in shown
    assert COMPLETION in shown


def test_one_prompt_is_shown_once_for_all_variants(tmp_path: Path) -> None:
    page = report(tmp_path, manifest("int8", evidence()), manifest(measured=evidence()))
    assert page.words["pre"].count("\n" + PROMPT) == 1
    assert page.words["pre"].count("\n" + COMPLETION) == 3


@pytest.mark.parametrize(
    ("measured", "missing"),
    [
        (None, "gpt-mini: not measured."),
        (evidence(quality=None), "Quality: not measured; there was no labelled data."),
        (evidence(latency=()), "Latency in process: not measured."),
        (evidence(samples=()), "int4: no sample completions were recorded."),
        (evidence(machine={}), "not recorded"),
        (evidence(), "Served latency: not measured; there are no load-test results."),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, measured: Evidence | None, missing: str) -> None:
    assert missing in report(tmp_path, manifest(measured=measured)).text


def test_a_variant_without_figures_keeps_its_rows(tmp_path: Path) -> None:
    page = report(tmp_path, manifest(measured=evidence()), manifest("int8"))
    assert page.words["th"].count("int8") == 3
    assert "gpt-mini-int8: not measured." in page.text
    assert page.words["text"].count("not measured") == 1


def test_figures_that_are_not_finite_are_not_drawn(tmp_path: Path) -> None:
    broken = quality(
        math.inf, math.nan, math.inf, value=math.inf, interval=Interval(low=math.nan, high=math.inf)
    )
    page = report(tmp_path, manifest("fp8", evidence(quality=broken)), manifest(measured=evidence()))
    assert "gpt-mini-int4: 5.1x smaller" in page.text
    assert "perplexity is not finite" in page.text
    drawn = [
        value for tag, attrs in page.elements for value in attrs.values() if tag in ("line", "path", "circle")
    ]
    assert not any(re.search(r"nan|inf", value or "") for value in drawn)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(load_test())[:100], "gpt-mini-int4.json is no load-test result: Invalid JSON"),
        ("", "Invalid JSON"),
        ("[]", "gpt-mini-int4.json is no load-test result"),
        ("{}", "outcome: Field required"),
        (json.dumps(load_test(p50=math.nan)), "latency_ms.percentiles.p50.value"),
        (json.dumps(load_test(generator={"offered_rps": -1})), "generator.offered_rps"),
    ],
)
def test_a_damaged_load_test_costs_its_own_row_only(tmp_path: Path, text: str, reason: str) -> None:
    served = {"gpt-mini-int4": text, "gpt-mini-fp32": json.dumps(load_test(streams=False))}
    page = report(tmp_path, baseline(), manifest(measured=evidence()), served=served)
    assert reason in page.text
    assert "p50 12.3, p99 45.6 ms at 20/s" in page.text
    assert "Served time to first token" not in page.text


def test_a_percentile_without_enough_samples_is_not_given(tmp_path: Path) -> None:
    served = {"gpt-mini-int4": json.dumps(load_test(p99=None))}
    page = report(tmp_path, manifest(measured=evidence()), served=served)
    assert "p50 12.3, p99 n/a ms at 20/s" in page.text
    assert "too few samples" in page.words["td"]


def test_an_invalid_load_test_is_no_measurement(tmp_path: Path) -> None:
    invalid = json.dumps(load_test(outcome="invalid", invalid=["the generator was late"]))
    page = report(tmp_path, manifest(measured=evidence()), served={"gpt-mini-int4": invalid})
    assert "no valid measurement: the generator was late" in page.text
    assert "INVALID p50 12.3, p99 45.6 ms at 20/s" in page.text


def test_the_footer_says_how_to_make_it_again(tmp_path: Path) -> None:
    page = report(tmp_path, manifest(measured=evidence()))
    for fact in ("cpu Some CPU, cores 2", "onnxruntime 1.31.1", "zoo:gpt-mini", "fingerprint abc123"):
        assert fact in page.text
    written = page.words["pre"][-1]
    assert "model: zoo:gpt-mini\nname: gpt-mini\nvariant: int4\nseed: 7\nsteps:\n" in written
    assert "method: quantize\n  scheme: int4\n  group_size: 32\n" in written


STEPS = [
    *(
        "{method: kv-cache}",
        "{method: kv-cache, dtype: int8}",
        "{method: qat}",
        "{method: lora, merge: false}",
    ),
    *("{method: quantize, scheme: int4}", "{method: quantize, scheme: int8-weight-only, algorithm: awq}"),
    *("{method: quantize, scheme: mixed, budget: {bits: 5}}", "{method: prune, criterion: wanda}"),
]


@pytest.mark.parametrize(
    "text",
    [path.read_text() for path in RECIPES] + [f"model: zoo:gpt-mini\nsteps: [{step}]" for step in STEPS],
)
def test_the_footers_recipe_asks_for_the_same_steps(text: str) -> None:
    asked = parse_recipe(text)
    steps = [StepRecord(method=step.method, config=settings(step)) for step in asked.steps]
    made = manifest(lineage=Lineage(source=asked.model, steps=(StepRecord(method="source"), *steps)))
    assert parse_recipe(recipe(made)).steps == asked.steps


def test_no_bundles_still_make_a_page(tmp_path: Path) -> None:
    assert "No bundles were given." in report(tmp_path).text


def test_the_page_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    write_report([], out)
    write_report([baseline()], out)
    assert "gpt-mini-fp32" in out.read_text()
    assert list(out.parent.iterdir()) == [out]


def test_a_lone_surrogate_does_not_cost_the_page(tmp_path: Path) -> None:
    sample = Sample.model_construct(input="\ud800", output="a", baseline="b")
    assert (
        "Prompt"
        in report(
            tmp_path,
            manifest(measured=evidence()).model_copy(
                update={"evidence": evidence().model_copy(update={"samples": (sample,)})}
            ),
        ).text
    )


def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelpressError, match="nowhere: not a folder"):
        write_report([], tmp_path / "report.html", tmp_path / "nowhere")
    with pytest.raises(ModelpressError, match="name the file to write"):
        write_report([], tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_sensitivity_is_drawn_and_tabled_worst_first(tmp_path: Path) -> None:
    measured = {
        "layers.0.up": {"bits": 4, "4": 0.002, "8": 1e-5, "16": 1e-8},
        "embedding": {"bits": 8, "4": 0.5, "8": 0.003, "16": 1e-7},
    }
    step = StepRecord(method="quantize", config={"scheme": "mixed"}, figures={"sensitivity": measured})
    mixed = manifest("mixed-5", evidence(), lineage=Lineage(source="zoo:gpt-mini", steps=(step,)))
    write_report([baseline(), mixed], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert "Sensitivity to rounding: mixed-5" in page.text
    assert page.text.index("embedding") < page.text.index("layers.0.up")
    assert "0.500" in page.text
    assert '"16"' not in page.text


def test_a_page_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/report.html: cannot be written: .+; choose another --out"):
        write_report([manifest()], tmp_path / "file" / "report.html")
