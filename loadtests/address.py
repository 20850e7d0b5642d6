"""The server's address, taken apart once."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.errors import InvalidOption

# Holds the bearer token; addresses and scenarios are written into results, the environment is not.
API_KEY_VARIABLE = "MODELPRESS_API_KEY"

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """`path` is what each request's own path is appended to, empty or without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """For the Host header; the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.path


def parse(text: str, option: str = "--url") -> Address:
    """Raises InvalidOption."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidOption(f"{option} {text}: {error}") from error
    if parts.username or parts.password:
        raise InvalidOption(
            f"{option}: the address goes into the result; put a secret into {API_KEY_VARIABLE}"
        )
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise InvalidOption(f"{option} {text}: an address looks like http://127.0.0.1:3000")
    if not re.fullmatch("[!-~]+", parts.hostname + parts.path):
        raise InvalidOption(f"{option} {text}: only ASCII without spaces; xn--… in the host, %… in the path")
    return Address(parts.scheme, parts.hostname, port or PORTS[parts.scheme], parts.path.rstrip("/"))
