from io import StringIO

from rich.console import Console

from compress.table import bundle_tables, describe
from runtime.bundle import Bundle
from runtime.manifest import Evidence, Interval, Manifest, Quality


def shown(part: object, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def measured(manifest: Manifest, name: str, variant: str) -> Manifest:
    quality = Quality(
        metric="perplexity",
        higher_is_better=False,
        value=55.04,
        interval=Interval(low=50.0, high=60.0),
        baseline=54.76,
        drop=0.005,
        drop_interval=Interval(low=0.004, high=0.006),
        examples=128,
    )
    evidence = Evidence(size_bytes=3_770_000, baseline_size_bytes=16_670_000, quality=quality)
    return manifest.model_copy(update={"name": name, "variant": variant, "evidence": evidence})


def test_one_table_a_model_whatever_the_order(text_bundle: Bundle) -> None:
    named = [("b", "int4"), ("a", "fp32"), ("b", "fp16")]
    lines = shown(bundle_tables([measured(text_bundle.manifest, *each) for each in named])).splitlines()
    first_words = [line.split()[0] for line in lines if line.strip()]
    assert first_words == ["b", "MB", "int4", "fp16", "a", "MB", "fp32"]


def test_figures_are_whole_in_80_columns_even_beside_a_long_name(text_bundle: Bundle) -> None:
    manifest = measured(text_bundle.manifest, "gpt", "distill-shrink-int8-dynamic")
    text = shown(bundle_tables([manifest], {manifest.tag: "43.2 / 55.0*"}), width=92)
    for figure in ("3.77", "4.4x", "55.04", "+0.50 [+0.40,+0.60]", "43.2 / 55.0*"):
        assert figure in text


def test_a_description_names_every_metric(text_bundle: Bundle) -> None:
    manifest = measured(text_bundle.manifest, "names", "int8")
    assert manifest.evidence
    assert manifest.evidence.quality
    rouge = manifest.evidence.quality.model_copy(update={"metric": "rouge-l", "value": 0.5308})
    both = manifest.evidence.model_copy(update={"also": (rouge,)})
    assert "rouge-l 0.5308" in shown(describe(manifest.model_copy(update={"evidence": both})))


def test_a_bundle_without_evidence_says_so(text_bundle: Bundle) -> None:
    assert "not measured" in shown(bundle_tables([text_bundle.manifest]))
    assert text_bundle.manifest.version in shown(describe(text_bundle.manifest))
