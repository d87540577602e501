"""The OpenAPI 3.1 description of the API, made of its routes and of what `@operation` says of each method; nothing by hand.

Shapes are pydantic's JSON Schemas: of bodies as they are read, of answers as they are written.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from addons.console.api.answers import ErrorAnswer
from addons.console.routes import REHEARSE_HEADER, Operation, Route, methods_of

VERSION = "3.1.0"
JSON = "application/json"
_TAGGED = re.compile(r"\{[a-z_]+\}")
_UNCOUNTED = frozenset({"stats", "status", "metrics"})
"""Words that end like a plural."""
_REASONS: Mapping[int, str] = {
    400: "The request is wrong: the message names the place and what to do",
    401: "Not signed in",
    403: "Refused: Host, Origin, CSRF token, or signing in is switched off",
    404: "There is no such thing",
    409: "Taken, in conflict, or not to be changed here",
    412: "It was changed meanwhile: the entity tag in If-Match is not its tag any more",
    413: "The body is too large",
    429: "Too many failed sign-ins from this address",
    503: "A store cannot be reached",
}


@dataclass(frozen=True, slots=True)
class Described:
    """One method of one route."""

    route: Route
    method: str
    operation: Operation
    needs_sign_in: bool
    takes_virtual_key: bool

    @property
    def key(self) -> str:
        """Distinguishes its schemas from those of others."""
        return f"{self.method} {self.route.path}"


class _Shapes(GenerateJsonSchema):
    """Without titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def openapi_document(routes: Sequence[Route], *, version: str, cookie_name: str) -> dict[str, Any]:
    """The whole document. Raises ValueError for a method without `@operation`."""
    described = list(operations(routes))
    shapes, components = _schemas(described)
    names = operation_ids(described)
    paths: dict[str, dict[str, Any]] = {}
    for one in described:
        paths.setdefault(one.route.path, {})[one.method] = _operation(one, names[one.key], shapes)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Tollgate",
            "version": version or "0",
            "summary": "Virtual keys, budgets, limits, providers and logs of a gateway that caps spending on language models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}, {"session": []}],
        "tags": [{"name": tag} for tag in sorted({_tag(one.route.path) for one in described})],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The token in `admin.token` of the app directory."},
                "basic": {"type": "http", "scheme": "basic", "description": "User and password of `auth_config`."},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": cookie_name,
                    "description": "Changes also need the header X-CSRF-Token, which the login's answer gives.",
                },
                "virtualKey": {"type": "apiKey", "in": "header", "name": "x-bf-vk", "description": "A virtual key."},
            },
            "headers": {
                "ETag": {
                    "description": "Tag of the thing as it is configured (sums do not count); send it back as If-Match.",
                    "schema": {"type": "string"},
                }
            },
        },
    }


def operations(routes: Iterable[Route]) -> Iterator[Described]:
    """Every method that the routes answer. Raises ValueError for one that says nothing of itself."""
    for route in routes:
        for name in methods_of(route.handler):
            told: Operation | None = getattr(getattr(route.handler, name), "operation", None)
            if told is None:
                raise ValueError(f"{name.upper()} {route.path} has no @operation")
            yield Described(
                route,
                name,
                told,
                bool(getattr(route.handler, "needs_sign_in", True)),
                bool(getattr(route.handler, "takes_virtual_key", False)),
            )


def operation_ids(described: Sequence[Described]) -> dict[str, str]:
    """`list_virtual_keys`, `get_virtual_key`, `rotate_virtual_key`, …; where two would be equal, with `governance` inside."""
    collections = {before for one in described for before, part, _ in [one.route.path.partition("/{")] if part}
    short = {one.key: _id(one, collections, long=False) for one in described}
    times = Counter(short.values())
    return {one.key: short[one.key] if times[short[one.key]] == 1 else _id(one, collections, long=True) for one in described}


def _id(one: Described, collections: Collection[str], *, long: bool) -> str:
    segments = [part for part in one.route.path.strip("/").split("/") if part != "api" and (long or part != "governance")]
    words: list[str] = []
    for index, segment in enumerate(segments):
        if _TAGGED.fullmatch(segment):
            continue
        word = re.sub(r"\W", "_", segment.removesuffix(".json"))
        followed = index + 1 < len(segments) and _TAGGED.fullmatch(segments[index + 1])
        words.append(word.removesuffix("s") if followed else word)
    on_one = bool(_TAGGED.fullmatch(segments[-1])) if segments else False
    last = words[-1]
    plural = last.endswith("s") and not last.endswith("ss") and last not in _UNCOUNTED and not on_one
    if one.method == "get":
        plural = plural or one.route.path in collections
        return "_".join(["list" if plural else "get", *words])
    if one.method == "post" and not on_one:
        if plural:
            return "_".join(["create", *words[:-1], last.removesuffix("s")])
        return "_".join([last, *words[:-1]]) if len(words) > 1 else f"post_{last}"
    return "_".join([{"put": "update", "delete": "delete", "patch": "patch", "post": "post"}[one.method], *words])


def _tag(path: str) -> str:
    segments = path.removeprefix("/api/").strip("/").split("/")
    return segments[1] if segments[0] == "governance" and len(segments) > 1 else segments[0].removesuffix(".json")


def _operation(one: Described, name: str, shapes: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    told = one.operation
    made: dict[str, Any] = {"operationId": name, "summary": told.summary, "tags": [_tag(one.route.path)]}
    if one.takes_virtual_key:
        made["security"] = [{"virtualKey": []}, {"bearer": []}]
    elif not one.needs_sign_in:
        made["security"] = []
    parameters = [
        {"name": part, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for part in one.route.parts
    ]
    parameters += list(_query(shapes.get((one.key, "query"))))
    if _can_be_stale(one):
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The ETag that was read: when the thing was changed since, nothing is done and the answer is 412.",
                "schema": {"type": "string"},
            }
        )
    if _can_be_rehearsed(one):
        parameters.append(
            {
                "name": REHEARSE_HEADER,
                "in": "header",
                "required": False,
                "description": "With 1 every check is made and nothing is changed: 204 when it would have worked.",
                "schema": {"type": "string", "enum": ["1"]},
            }
        )
    if parameters:
        made["parameters"] = parameters
    if told.body is not None:
        required = any(field.is_required() for field in told.body.model_fields.values())
        made["requestBody"] = {"required": required, "content": {JSON: {"schema": shapes[one.key, "body"]}}}
    made["responses"] = _responses(one, shapes)
    return made


def _responses(one: Described, shapes: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    told = one.operation
    good: dict[str, Any] = {"description": "It is done" if one.method != "get" else "What was asked for"}
    if told.answer is not None:
        kinds = [kind.strip() for kind in told.media.split(",")]
        good["content"] = {kind: {"schema": {} if kind == JSON and len(kinds) > 1 else shapes[one.key, "answer"]} for kind in kinds}
    if one.method in ("get", "put") and one.route.parts:
        good["headers"] = {"ETag": {"$ref": "#/components/headers/ETag"}}
    made = {str(told.status): good}
    if _can_be_rehearsed(one):
        made["204"] = {"description": f"Rehearsed with {REHEARSE_HEADER}: it would have worked, and nothing was changed"}
    for status in _failures(one):
        made[str(status)] = {"description": _REASONS[status], "content": {JSON: {"schema": shapes["", "error"]}}}
    return made


def _failures(one: Described) -> Iterator[int]:
    yield 400
    if one.needs_sign_in or one.takes_virtual_key or one.operation.body is not None:
        yield 401
    yield 403
    writes = one.method != "get"
    if one.route.parts or writes or one.operation.query is not None:
        yield 404
    if writes:
        yield 409
    if _can_be_stale(one) or (one.operation.query is not None and "tag" in one.operation.query.model_fields):
        yield 412
    if one.operation.body is not None:
        yield 413
    yield 429
    yield 503


def _can_be_rehearsed(one: Described) -> bool:
    return one.method != "get" and one.operation.rehearsal


def _can_be_stale(one: Described) -> bool:
    return one.method in ("put", "patch", "delete") or (one.method == "post" and bool(one.route.parts))


def _query(schema: Any) -> Iterator[dict[str, Any]]:
    if schema is None:
        return
    required = schema.get("required", ())
    for name, shape in schema.get("properties", {}).items():
        shape = dict(shape)
        made = {"name": name, "in": "query", "required": name in required}
        if text := shape.pop("description", None):
            made["description"] = text
        if shape.get("default", "") is None:
            del shape["default"]
        yield {**made, "schema": _without_null(shape)}


def _without_null(shape: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not; it is never null."""
    options = [option for option in shape.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1 and "anyOf" in shape:
        return {**{name: value for name, value in shape.items() if name != "anyOf"}, **options[0]}
    return shape


def _schemas(described: Sequence[Described]) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """(schema of each operation's query, body and answer; the shapes they refer to)."""
    wanted: list[tuple[tuple[str, str], Any, TypeAdapter[Any]]] = [
        (("", "error"), "serialization", TypeAdapter(ErrorAnswer)),
    ]
    for one in described:
        if one.operation.body is not None:
            wanted.append(((one.key, "body"), "validation", TypeAdapter(one.operation.body)))
        if one.operation.answer is not None:
            wanted.append(((one.key, "answer"), "serialization", TypeAdapter(one.operation.answer)))
    made, rest = TypeAdapter.json_schemas(wanted, ref_template="#/components/schemas/{model}", schema_generator=_Shapes)
    shapes: dict[tuple[str, str], Any] = {key: schema for (key, _), schema in made.items()}
    for one in described:
        if one.operation.query is not None:
            shapes[one.key, "query"] = _inlined(one.operation.query)
    return shapes, rest.get("$defs", {})


def _inlined(model: type[BaseModel]) -> Any:
    schema = model.model_json_schema(schema_generator=_Shapes, mode="validation")
    if "$defs" in schema:
        raise ValueError(f"{model.__name__}: parameters of a query are plain values")
    return schema
