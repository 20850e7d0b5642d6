"""API keys: made, kept as hashes, found again; and each one's share."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RateLimited, ServiceError
from service.keys import Key, Keyring, new_key
from service.quota import Quotas

ROOT = Path(__file__).parents[2]


def test_a_new_key_is_found_by_its_hash_alone(tmp_path: Path):
    secret, line = new_key("ci", ["infer"])
    path = tmp_path / "keys.txt"
    path.write_text(f"# ours\n\n{line} concurrency=4 rate=2.5\n")
    found = Keyring.read(path).find(secret.encode())
    assert (found.name, found.scopes, found.concurrency, found.rate) == ("ci", {"infer"}, 4, 2.5)
    assert secret not in line
    assert hashlib.sha256(secret.encode()).hexdigest() in line


def test_a_wrong_key_is_nobodys():
    ring = Keyring.read(None, ["right"])
    assert ring.find(b"right").scopes == {"infer", "admin"}
    assert ring.find(b"wrong") is None
    assert ring.find(b"") is None
    assert not Keyring()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("me infer hunter2hunter2", "not `name scopes sha256`"),
        (f"me root {'0' * 64}", "the scopes are infer and admin"),
        (f"m/e infer {'0' * 64}", "a key's name is"),
        (f"me infer {'0' * 64} colour=red", "unknown 'colour'"),
        (f"me infer {'0' * 64} rate=fast", "take a number"),
        (f"me infer {'0' * 64} rate=", "take a number"),
        (f"me infer {'0' * 64} concurrency", "take a number"),
        (f"me infer {'0' * 64} concurrency=0", "are above 0"),
        (f"me infer {'0' * 64} rate=-1", "are above 0"),
        (f"me infer {'0' * 64} rate=nan", "are above 0"),
    ],
)
def test_a_wrong_line_is_named_and_never_repeated(tmp_path, line, message):
    (tmp_path / "keys.txt").write_text(line)
    with pytest.raises(ServiceError, match="line 1") as caught:
        Keyring.read(tmp_path / "keys.txt")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ServiceError, match="No such file"):
        Keyring.read(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "# nobody yet\n\n"])
def test_a_file_without_a_key_opens_no_door(tmp_path, text):
    (tmp_path / "keys.txt").write_text(text)
    with pytest.raises(ServiceError, match="there is no key in it"):
        Keyring.read(tmp_path / "keys.txt")


def key(**limits: float) -> Key:
    return Key("k", frozenset({"infer"}), b"", **limits)


def test_a_key_has_its_share_of_requests_at_once():
    quotas = Quotas(2, None)
    quotas.take(key())
    quotas.take(key())
    with pytest.raises(RateLimited, match="in hand"):
        quotas.take(key())
    quotas.give_back(key())
    quotas.take(key())


def test_a_key_of_its_own_limits_is_not_held_to_the_default():
    quotas = Quotas(1, None)
    for _ in range(3):
        quotas.take(key(concurrency=3))


HOLDER = """
import pathlib, sys
from service.keys import Key
from service.quota import Quotas
quotas = Quotas(2, None, pathlib.Path(sys.argv[1]))
for _ in range(2):
    quotas.take(Key("k", frozenset(), b""))
print("holds two", flush=True)
sys.stdin.readline()
quotas.give_back(Key("k", frozenset(), b""))
print("holds one", flush=True)
sys.stdin.readline()
"""


def test_workers_share_what_a_key_may_have_in_hand_and_a_dead_one_holds_nothing(tmp_path):
    quotas = Quotas(2, None, tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=-1, stdout=-1) as worker:
        try:
            assert worker.stdout.readline() == "holds two\n"
            with pytest.raises(RateLimited, match="2 requests in hand"):
                quotas.take(key())
            print(file=worker.stdin, flush=True)
            assert worker.stdout.readline() == "holds one\n"
            quotas.take(key())
            with pytest.raises(RateLimited):
                quotas.take(key())
        finally:
            worker.kill()
    quotas.take(key())
    with pytest.raises(RateLimited):
        quotas.take(key())
    quotas.give_back(key())
    quotas.take(key())


def test_workers_share_what_a_key_may_send(tmp_path):
    now = 100.0
    workers = [Quotas(None, 4, tmp_path, clock=lambda: now) for _ in range(2)]
    for worker in workers * 2:
        worker.take(key())
    for worker in workers:
        with pytest.raises(RateLimited, match="4 requests a second"):
            worker.take(key())
    now += 0.25
    workers[1].take(key())
    with pytest.raises(RateLimited):
        workers[0].take(key())


@pytest.mark.parametrize("shared", [False, True])
def test_who_is_refused_for_the_rate_has_nothing_in_hand(tmp_path, shared):
    now = 100.0
    quotas = Quotas(1, 1, tmp_path if shared else None, clock=lambda: now)
    quotas.take(key())
    quotas.give_back(key())
    with pytest.raises(RateLimited, match="a second"):
        quotas.take(key())
    now += 1
    quotas.take(key())


@given(st.lists(st.floats(0, 0.5), max_size=60), st.integers(1, 20))
def test_no_pattern_of_requests_gets_more_than_the_rate(pauses, rate):
    now, passed, waits = 0.0, 0, []
    quotas = Quotas(None, rate, clock=lambda: now)
    for pause in pauses:
        now += pause
        try:
            quotas.take(key())
        except RateLimited as error:
            waits.append(error.retry_after)
        else:
            passed += 1
    assert passed <= rate * (1 + now) + 1e-6
    assert all(0 < wait <= 1 / rate + 1e-9 for wait in waits)


def test_waiting_as_long_as_it_says_is_enough():
    now = 100.0
    quotas = Quotas(None, 4, clock=lambda: now)
    for _ in range(4):
        quotas.take(key())
    with pytest.raises(RateLimited) as caught:
        quotas.take(key())
    now += caught.value.retry_after
    quotas.take(key())
