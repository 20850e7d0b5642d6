import pytest

from loadtests.address import Address, parse
from loadtests.errors import InvalidOption


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("http://host:3000", Address("http", "host", 3000), "host:3000"),
        ("http://host/", Address("http", "host", 80), "host"),
        ("https://host/a/", Address("https", "host", 443, "/a"), "host"),
        ("http://[::1]:8000", Address("http", "::1", 8000), "[::1]:8000"),
    ],
)
def test_an_address_is_taken_apart(text, address, authority):
    assert parse(text) == address
    assert address.authority == authority


@pytest.mark.parametrize(
    "text",
    [
        *(
            "127.0.0.1:3000",
            "ftp://host",
            "http://",
            "http://host:port",
            "http://me:secret@host",
            "http://h?a=b",
        ),
        *("http://例え.jp", "http://host/ä", "http://host/a b"),
    ],
)
def test_what_is_no_address_is_refused_without_quoting_a_secret(text):
    with pytest.raises(InvalidOption, match="--url") as caught:
        parse(text)
    assert "secret@" not in str(caught.value)
