"""API keys: who may ask, and for what. Only hashes are kept.

A line of the keys file is `name scopes sha256` and, if the key is to have limits of its own,
`concurrency=N` and `rate=N` (requests a second):

    ci      infer        5e88489…  concurrency=4 rate=20
    ops     infer,admin  8d969ee…

`modelpress key` writes such a line and shows the key once. A key is 32 random bytes, so one round of sha256
is as good as a slow hash would be: there is nothing to guess. It limits nobody: `quota.py` does.
"""

import hashlib
import hmac
import math
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from service.errors import ServiceError

Scope = Literal["infer", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "mp-"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key's holder. `concurrency` and `rate` (requests a second) are None where the defaults hold."""

    name: str
    scopes: frozenset[str]
    digest: bytes
    concurrency: int | None = None
    rate: float | None = None


class Keyring:
    """Every key that is known. An empty one knows nobody: then no key is asked for."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: Sequence[Key] = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, secret: bytes) -> Key | None:
        """The key that `secret` is. Takes equally long for every wrong one: all hashes are compared."""
        digest = hashlib.sha256(secret).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    @classmethod
    def read(cls, path: Path | None, plain: Sequence[str] = ()) -> "Keyring":
        """The keys of a file and of the environment (plain, with every scope). Raises ServiceError.

        A file without a key is refused: whoever names one wants strangers kept out.
        """
        keys = [Key(f"env{i}", frozenset(SCOPES), _hash(secret)) for i, secret in enumerate(plain)]
        if path is not None:
            keys += [_parse(line, path, number) for number, line in _lines(path)]
        return cls(keys)


def new_key(name: str, scopes: Sequence[str]) -> tuple[str, str]:
    """A fresh key, and its line for the keys file. Raises ServiceError for a name or scope that is none."""
    _check_name(name, "the name")
    _check_scopes(scopes, "the scopes")
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, f"{name} {','.join(scopes)} {_hash(secret).hex()}"


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ServiceError(f"{path}: the keys cannot be read: {reason}; name another file") from None
    numbered = enumerate((line.partition("#")[0].strip() for line in text.splitlines()), 1)
    lines = [(number, line) for number, line in numbered if line]
    if not lines:
        raise ServiceError(f"{path}: there is no key in it; `modelpress key NAME` makes a line of it")
    return lines


def _parse(line: str, path: Path, number: int) -> Key:
    where = f"{path} line {number}"
    name, *rest = line.split()
    if len(rest) < 2 or not _DIGEST.fullmatch(rest[1]):
        # The line may hold a plain key by mistake: it is not repeated.
        raise ServiceError(f"{where}: not `name scopes sha256`; `modelpress key NAME` makes such a line")
    _check_name(name, where)
    scopes = rest[0].split(",")
    _check_scopes(scopes, where)
    limits = dict(part.partition("=")[::2] for part in rest[2:])
    concurrency, rate = limits.pop("concurrency", None), limits.pop("rate", None)
    if limits:
        raise ServiceError(f"{where}: unknown '{next(iter(limits))}'; only concurrency= and rate= may follow")
    try:
        key = Key(
            name,
            frozenset(scopes),
            bytes.fromhex(rest[1]),
            None if concurrency is None else int(concurrency),
            None if rate is None else float(rate),
        )
    except ValueError:
        raise ServiceError(f"{where}: concurrency= and rate= take a number") from None
    # Whoever writes 0 means to stop a key, and must not be understood as setting no limit.
    if not all(limit is None or 0 < limit < math.inf for limit in (key.concurrency, key.rate)):
        raise ServiceError(f"{where}: concurrency= and rate= are above 0; take the line out to stop a key")
    return key


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise ServiceError(f"{where}: a key's name is letters, digits, '.', '_' and '-'")


def _check_scopes(scopes: Sequence[str], where: str) -> None:
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ServiceError(f"{where}: the scopes are {' and '.join(SCOPES)}, separated by a comma")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
