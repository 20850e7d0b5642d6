"""The page at `/`: everything that a browser fetches for it comes from here."""

import re

import pytest


@pytest.fixture(scope="module")
def page(server):
    return server.http.get("/")


def test_nothing_of_the_page_is_from_elsewhere(page):
    assert page.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"https?:|['\"(]//|googletagmanager", page.text)


def test_nothing_in_the_description_is_from_elsewhere(server):
    """Its texts are shown as Markdown, with the pictures in them."""
    assert not re.search(r"https?:|<img|!\[", server.http.get("/openapi.json").text)


def test_what_the_page_loads_is_served(server, page):
    loaded = re.findall(r'(?:src|href|url)(?:=|: )"(\./[^"]+)"', page.text)
    assert len(loaded) == 3
    assert {server.http.get(path.removeprefix(".")).status_code for path in loaded} == {200}


def test_a_browser_is_told_to_fetch_from_here_alone(page):
    """Whatever Swagger UI, or the next release of BentoML, would like to."""
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    sources = {source for value in policy.values() for source in value.split()}
    assert not any("." in source or source.endswith("//") or source == "*" for source in sources)


def test_no_validator_is_asked_about_the_description(page):
    """Swagger UI asks one on the internet where the page is not looked at on the serving machine."""
    assert "validatorUrl: null" in page.text
