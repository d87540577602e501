"""One address of the API: its path with named parts, who answers, and what the description says of each method."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from tornado.web import RequestHandler

REHEARSE_HEADER = "X-Tollgate-Rehearse"
"""With the value 1 a change is checked as always and then taken back: 204 says that it would have worked."""
METHODS = ("get", "post", "put", "patch", "delete")
_PART = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is written as OpenAPI writes it: `/api/providers/{name}`; each part is an argument of the handler's methods."""

    path: str
    handler: type[RequestHandler]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the handler's `initialize` takes."""

    def rule(self) -> tuple[str, type[RequestHandler], dict[str, Any]]:
        """As Tornado wants it."""
        pattern = "".join(
            f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(_PART.split(self.path))
        )
        return pattern, self.handler, dict(self.arguments)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the path's parts, in order."""
        return tuple(_PART.findall(self.path))


@dataclass(frozen=True, slots=True)
class Operation:
    """What a method takes and gives. `answer` is any type that pydantic can make a JSON schema of, such as a TypedDict."""

    summary: str
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answer: Any = None
    status: int = 200
    media: str = "application/json"
    """What kind of answer it is; several by commas."""
    rehearsal: bool = True
    """Of a change: it is made through `self.store` in one transaction, which can be rolled back in place of committed."""


type Method = Callable[..., Awaitable[None]]


def operation(
    summary: str,
    *,
    query: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    answer: Any = None,
    status: int = 200,
    media: str = "application/json",
    rehearsal: bool = True,
) -> Callable[[Method], Method]:
    """Says of a handler's method what `/api/openapi.json` tells: one line, the query, the body, the answer, its status and kind.

    A method that changes something otherwise than in one transaction of `self.store` says `rehearsal=False`.
    """

    def described(method: Method) -> Method:
        method.operation = Operation(summary, query, body, answer, status, media, rehearsal)  # type: ignore[attr-defined]
        return method

    return described


def methods_of(handler: type[RequestHandler]) -> tuple[str, ...]:
    """The methods that a handler answers, in lower case, without HEAD, which goes with GET."""
    return tuple(name for name in METHODS if getattr(handler, name) is not getattr(RequestHandler, name))
