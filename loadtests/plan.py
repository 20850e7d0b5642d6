"""The plan of a run: every request of it, drawn from the seed before anything is sent.

The same scenario and seed give the same plan. Times, choices from the mix, choices of a body, clients'
conduct and pauses come from independent streams of the seed: another mix leaves the times as they were.
A plan is a few columns, 18 bytes a request; the distinct requests are serialised once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from loadtests import dialects, schedule, spread
from loadtests.client import NORMAL, Client, Conduct, Ready
from loadtests.dialects import Request
from loadtests.dialects.exchange import Call
from loadtests.errors import InvalidOption, InvalidScenario
from loadtests.sample import Manner
from loadtests.scenario import Scenario
from loadtests.schedule import TraceArrivals
from loadtests.trace import Line

# A run of this many is beyond what a session of one generator should be; with its samples it takes 0.5 GB.
MAX_REQUESTS = 5_000_000

# How many requests a closed loop without a number of them draws. After the last, the first comes again.
CLOSED_REQUESTS = 100_000

# A user is a connection, and to one server an address has no more of them than ports.
MAX_USERS = 65_535

# For lengths that a trace leaves out.
DEFAULT_WORDS, DEFAULT_TOKENS = 100, 64


@dataclass(frozen=True, slots=True)
class Shard:
    """The `index`-th of `count` generators that share a plan. It sends every `count`-th of its requests."""

    index: int = 0
    count: int = 1

    def of(self, values: Sequence[int]) -> Sequence[int]:
        return values[self.index :: self.count]

    def share(self, whole: int) -> int:
        """Its part of a number of users."""
        return len(range(self.index, whole, self.count))


WHOLE = Shard()


@dataclass(frozen=True, slots=True)
class Plan:
    """Columns with an entry for each request; the turns of a conversation follow each other.

    `offset` is when a request goes out in seconds after the start; NaN for a later turn and in a closed loop.
    `pause` is how long a later turn, or the user of a closed loop, waits before it. `heads` are the requests
    that follow none, in the order of their going out; `endless` ones begin again after the last. `users` is
    None in an open loop.
    """

    ready: list[Ready]
    conducts: list[dict[Manner, Conduct]]
    pick: NDArray[np.int32]
    offset: NDArray[np.float64]
    pause: NDArray[np.float32]
    manner: NDArray[np.int8]
    later: NDArray[np.bool_]
    heads: Sequence[int]
    span: float
    users: int | None
    at_once: int
    endless: bool = False

    def __len__(self) -> int:
        return len(self.pick)

    @property
    def requests(self) -> int:
        """How many go out, if every conversation goes to its end; 0 in a closed loop, which cannot tell."""
        if self.users is not None:
            return 0
        heads = np.zeros(len(self), dtype=bool)
        heads[np.asarray(self.heads)] = True
        owner = np.maximum.accumulate(np.where(self.later, 0, np.arange(len(self))))
        return int(heads[owner].sum())

    def call(self, row: int) -> Ready:
        return self.ready[int(self.pick[row])]

    def conduct(self, row: int) -> Conduct:
        return self.conducts[self.call(row).request].get(Manner(self.manner[row]), NORMAL)

    def is_later(self, row: int) -> bool:
        """Whether there is such a row, and it continues the one before it."""
        return row < len(self.later) and bool(self.later[row])

    def kinds(self) -> Iterator[int]:
        """The first request of each entry of the mix that occurs in this plan."""
        requests = np.array([ready.request for ready in self.ready])[self.pick[np.asarray(self.heads)]]
        for number in np.unique(requests):
            yield int(self.heads[int(np.argmax(requests == number))])


def draw(scenario: Scenario, client: Client, shard: Shard = WHOLE) -> Plan:
    """The whole run. Raises InvalidScenario when it is empty or does not fit."""
    times, mixing, bodies, conduct, pauses = map(
        np.random.default_rng, np.random.SeedSequence(scenario.seed).spawn(5)
    )
    offsets = _offsets(scenario, times)
    entries = _entries(scenario, len(offsets), mixing)
    ready, firsts = _serialise(scenario, client)
    if sizes := _sizes(scenario, len(offsets)):
        first = _sized(scenario, client, sizes, entries, ready)
    else:
        first = _choose(firsts, entries, bodies.random(len(offsets)))
    turns = np.array([_turns(one.call) for one in ready])[first]
    if turns.sum() > MAX_REQUESTS:
        raise InvalidScenario(f"{turns.sum():,} requests are more than {MAX_REQUESTS:,}: shorten the run")
    starts = np.cumsum(turns) - turns
    turn = np.arange(turns.sum()) - np.repeat(starts, turns)
    entry = np.repeat(entries, turns)
    return Plan(
        ready=ready,
        conducts=[_conducts(request) for request in scenario.mix],
        pick=(np.repeat(first, turns) + turn).astype(np.int32),
        offset=np.where(turn == 0, np.repeat(offsets, turns), np.nan),
        pause=_pauses(scenario, entry, turn, pauses),
        manner=_manners(scenario, entry, conduct),
        later=turn > 0,
        heads=shard.of(starts.tolist() if (turns > 1).any() else range(len(starts))),
        span=scenario.span,
        users=_users(scenario, shard),
        at_once=schedule.at_once(scenario.arrivals),
        endless=schedule.limit(scenario.arrivals) is None,
    )


def _offsets(scenario: Scenario, generator: np.random.Generator) -> NDArray[np.float64]:
    """When the heads go out; NaN in a closed loop, for as many as it draws."""
    chosen, span = scenario.arrivals, scenario.span
    if isinstance(chosen, schedule.Closed):
        return np.full(min(schedule.limit(chosen) or CLOSED_REQUESTS, MAX_REQUESTS), np.nan)
    if isinstance(chosen, schedule.OnOffArrivals) and span > MAX_REQUESTS * (chosen.on_for + chosen.off_for):
        raise InvalidScenario(f"the load comes and goes more than {MAX_REQUESTS:,} times: shorten the run")
    expected = sum(stage.expected for stage in schedule.stages(chosen, span))
    if expected > MAX_REQUESTS:
        raise InvalidScenario(f"{expected:.4g} requests are more than {MAX_REQUESTS:,}: shorten the run")
    offsets = schedule.offsets(chosen, span, generator)
    if not (offsets >= scenario.fixed_warmup).any():
        raise InvalidScenario(
            f"no request falls into the {scenario.measured_s:g} s after the warm-up: lengthen the run"
        )
    return offsets


def _entries(scenario: Scenario, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Which entry of the mix each head is of: as a trace says, else by weight."""
    weights = np.array([request.weight for request in scenario.mix])
    drawn = generator.choice(len(weights), size=count, p=weights / weights.sum())
    if isinstance(scenario.arrivals, TraceArrivals):
        for row, line in enumerate(scenario.arrivals.lines[:count]):
            drawn[row] = drawn[row] if line.request is None else line.request
    return drawn


def _serialise(scenario: Scenario, client: Client) -> tuple[list[Ready], list[list[int]]]:
    """Every distinct call, turns of a conversation in a row, and for each entry where its first turns are."""
    ready: list[Ready] = []
    firsts: list[list[int]] = []
    for number, request in enumerate(scenario.mix):
        found = dialects.calls(request)
        firsts.append([_add(ready, client, call, number) for call in found])
    return ready, firsts


def _add(ready: list[Ready], client: Client, call: Call | None, number: int) -> int:
    """Append a call with its later turns; where it is then."""
    first = len(ready)
    while call is not None:
        ready.append(client.prepare(call, number))
        call = call.then
    return first


def _choose(
    firsts: list[list[int]], entries: NDArray[np.int64], fractions: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Which call each head is: evenly among those of its entry."""
    counts = np.array([len(found) for found in firsts])
    base = np.cumsum(counts) - counts
    flat = np.array(list(chain.from_iterable(firsts)))
    chosen: NDArray[np.int64] = flat[base[entries] + (fractions * counts[entries]).astype(np.int64)]
    return chosen


def _sizes(scenario: Scenario, count: int) -> list[Line]:
    """The lines of a trace that gives lengths."""
    lines = scenario.arrivals.lines[:count] if isinstance(scenario.arrivals, TraceArrivals) else []
    return lines if any(line.prompt or line.answer for line in lines) else []


def _sized(
    scenario: Scenario, client: Client, lines: list[Line], entries: NDArray[np.int64], ready: list[Ready]
) -> NDArray[np.int64]:
    """A call of its own for each line of a trace."""
    first = np.empty(len(lines), dtype=np.int64)
    for row, (line, entry) in enumerate(zip(lines, entries.tolist(), strict=True)):
        words, tokens = line.prompt or DEFAULT_WORDS, line.answer or DEFAULT_TOKENS
        first[row] = _add(ready, client, dialects.sized_call(scenario.mix[entry], words, tokens, row), entry)
    return first


def _turns(call: Call | None) -> int:
    count = 0
    while call is not None:
        count, call = count + 1, call.then
    return count


def _conducts(request: Request) -> dict[Manner, Conduct]:
    found = {}
    if request.cancel:
        found[Manner.CANCEL] = Conduct(Manner.CANCEL, cancel_after=request.cancel.after)
    if request.slow:
        found[Manner.SLOW] = Conduct(Manner.SLOW, bytes_per_s=request.slow.bytes_per_s)
    return found


def _manners(
    scenario: Scenario, entry: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int8]:
    """Who leaves and who dawdles, at the shares that the entries set."""
    cancel = np.array([request.cancel.share if request.cancel else 0.0 for request in scenario.mix])
    slow = np.array([request.slow.share if request.slow else 0.0 for request in scenario.mix])
    drawn = generator.random(len(entry))
    manner = np.full(len(entry), Manner.NORMAL, dtype=np.int8)
    manner[drawn < (cancel + slow)[entry]] = Manner.SLOW
    manner[drawn < cancel[entry]] = Manner.CANCEL
    return manner


def _pauses(
    scenario: Scenario, entry: NDArray[np.int64], turn: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Before later turns as their entry says, before heads as the users of a closed loop do."""
    pause = np.zeros(len(entry), dtype=np.float32)
    if think := getattr(scenario.arrivals, "think", 0.0):
        pause[:] = spread.draw(think, generator, len(entry))
    for number, request in enumerate(scenario.mix):
        rows = np.flatnonzero((entry == number) & (turn > 0))
        pause[rows] = spread.draw(getattr(request, "think", 0.0), generator, len(rows))
    return pause


def _users(scenario: Scenario, shard: Shard) -> int | None:
    if not isinstance(scenario.arrivals, schedule.Closed):
        return None
    share = shard.share(schedule.users(scenario.arrivals))
    if not share:
        raise InvalidOption(f"{shard.count} generators are more than there are users to share among them")
    if share > MAX_USERS:
        raise InvalidScenario(f"{share:,} users are more than an address's {MAX_USERS:,} ports: take fewer")
    return share
