"""Asks the server each kind of request once before the run, so that a mistake costs a line and not a run.

The probe's requests are not measured. It goes one after the other: a cold server may take its time for the
first.
"""

from collections.abc import Sequence

import aiohttp

from loadtests.client import Sample, send
from loadtests.errors import ProbeFailed
from loadtests.pacing import now
from loadtests.plan import API_KEY_VARIABLE, Arrival
from loadtests.scenario import Scenario


async def probe(session: aiohttp.ClientSession, plan: Sequence[Arrival], scenario: Scenario) -> None:
    """Raises ProbeFailed for the first kind of request that the server does not answer well."""
    first_of_each = {arrival.request: arrival for arrival in reversed(plan)}
    for number in sorted(first_of_each):
        arrival = first_of_each[number]
        sample = await send(session, arrival, now(), scenario.timeout)
        if sample.error:
            target = f"{scenario.mix[number].dialect} {scenario.mix[number].target}"
            raise ProbeFailed(_explain(arrival, sample, target, scenario.timeout))


def _explain(arrival: Arrival, sample: Sample, target: str, timeout: float) -> str:
    """One line: where, what, and what to do."""
    url, detail = arrival.url, sample.detail
    match sample.error:
        case "connect":
            return f"cannot reach {url.origin()}: {detail}"
        case "timeout":
            return f"{url} did not answer within the timeout of {timeout:g} s ({target})"
        case "http_401" | "http_403":
            return f"{url} refused us ({sample.status}): put its key into {API_KEY_VARIABLE}"
        case "http_404":
            return f"{url} answered 404, no such model or path ({target}): {detail}"
        case kind if kind and kind.startswith("http_"):
            return f"{url} answered {sample.status} to the probe ({target}): {detail}"
    return f"{url} does not answer as {target} should ({sample.error}): {detail}"
