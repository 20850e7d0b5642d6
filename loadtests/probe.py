"""Asks the server each kind of request once before the run, so that a mistake costs a line and not a run.

The probe's requests are not measured. It goes one after the other: a cold server may take its time for the
first.
"""

from loadtests.address import API_KEY_VARIABLE
from loadtests.client import Client, Ready
from loadtests.errors import ProbeFailed
from loadtests.plan import Plan
from loadtests.sample import Sample
from loadtests.scenario import Scenario


async def probe(client: Client, plan: Plan, scenario: Scenario) -> None:
    """Raises ProbeFailed for the first kind of request that the server does not answer well."""
    for row in plan.kinds():
        ready = plan.call(row)
        sample = await client.ask(ready, scenario.timeout)
        if sample.error:
            entry = scenario.mix[ready.request]
            target = f"{entry.dialect} {entry.target}"
            raise ProbeFailed(explain(client, ready, sample, target, scenario.timeout))


def explain(client: Client, ready: Ready, sample: Sample, target: str, timeout: float) -> str:
    """One line: where, what, and what to do."""
    url, detail = f"{client.address}{ready.call.path}", sample.detail
    match sample.error:
        case "connect":
            return f"cannot reach {client.address.origin}: {detail}"
        case "timeout":
            return f"{url} did not answer within the timeout of {timeout:g} s ({target})"
        case "http_401" | "http_403":
            return f"{url} refused us ({sample.status}): put its key into {API_KEY_VARIABLE}"
        case "http_404":
            return f"{url} answered 404, no such model or path ({target}): {detail}"
        case kind if kind and kind.startswith("http_"):
            return f"{url} answered {sample.status} to the probe ({target}): {detail}"
    return f"{url} does not answer as {target} should ({sample.error}): {detail}"
