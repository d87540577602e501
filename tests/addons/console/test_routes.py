"""Paths are written once, as OpenAPI writes them, and matched as Tornado does."""

import re

from addons.console.app import API_ROUTES
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation


def test_parts_of_a_path_become_arguments() -> None:
    route = Route("/api/providers/{name}/keys/{key_id}", ConsoleHandler)
    pattern, _, _ = route.rule()
    found = re.fullmatch(pattern, "/api/providers/openai/keys/a.b")
    assert found is not None and found.groupdict() == {"name": "openai", "key_id": "a.b"}
    assert route.parts == ("name", "key_id")
    assert re.fullmatch(pattern, "/api/providers/openai/keys/a/b") is None


def test_a_dot_in_a_path_is_a_dot() -> None:
    pattern, _, _ = Route("/api/openapi.json", ConsoleHandler).rule()
    assert re.fullmatch(pattern, "/api/openapi.json") and not re.fullmatch(pattern, "/api/openapiXjson")


def test_every_method_takes_the_parts_of_its_path() -> None:
    for route in API_ROUTES:
        for name in ("get", "post", "put", "patch", "delete"):
            method = getattr(route.handler, name)
            if method is getattr(ConsoleHandler, name):
                continue
            taken = method.__code__.co_varnames[1 : method.__code__.co_argcount]
            assert taken == route.parts, (route.path, name)


def test_a_description_stays_with_its_method() -> None:
    @operation("Does nothing", status=201)
    async def post(self: ConsoleHandler) -> None: ...

    assert (post.operation.summary, post.operation.status) == ("Does nothing", 201)
