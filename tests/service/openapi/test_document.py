"""The OpenAPI document, and servers that are held to it."""

from starlette.routing import Mount, Route

from service.app import create_app
from service.openapi.operations import OPERATIONS


def test_every_route_is_described():
    app = create_app(lambda: None)
    mounted = [route for mount in app.routes if isinstance(mount, Mount) for route in mount.routes]
    endpoints = {route.endpoint for route in [*app.routes, *mounted] if isinstance(route, Route)}
    undescribed = {endpoint.__name__ for endpoint in endpoints - OPERATIONS.keys()}
    assert undescribed == {"description", "page"}


def test_the_page_shows_bentomls_endpoints_and_ours(server):
    page = server.http.get("/docs.json").json()
    assert page == server.http.get("/openapi.json").json()
    some = {"/generate", "/predict", "/predict/{model}", "/v1/chat/completions", "/jobs/{id}/log"}
    assert some <= page["paths"].keys()
    assert (page["info"]["title"], page["info"]["version"]) == ("modelpress", "1")
    native = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = page["components"]["schemas"][native["$ref"].rpartition("/")[2]]["properties"]
    assert [kind["type"] for kind in fields["text"]["anyOf"]] == ["string", "array", "null"]
    assert page["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"].keys() == {"application/json"}


def test_references_lead_somewhere(server):
    page = server.http.get("/openapi.json").json()

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    for reference in references(page):
        found: object = page
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found
