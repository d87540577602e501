"""A secret as somebody wrote it: the text itself, or `env.NAME` or `file:PATH`, looked up when needed and never stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from store.config_store.secret_file import CannotRead, read_secret_file

ENV_PREFIX = "env."
FILE_PREFIX = "file:"
APP_DIR_VARIABLE = "TOLLGATE_APP_DIR"
"""In an environment that secrets are looked up in: the directory that relative paths of secret files begin at."""
_OBJECT_KEYS = frozenset({"value", "ref", "type", "env_var", "from_env"})


def environ_of(app_dir: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that this app directory's secrets are looked up in."""
    return {**environ, APP_DIR_VARIABLE: str(app_dir)}


class NoSecret(Exception):
    """The secret cannot be had; the text says why, as a part of a sentence, and never holds a secret."""


@dataclass(frozen=True, slots=True)
class SecretText:
    """What stands in the file, the request or the store. Never printed."""

    written: str = field(repr=False)

    @property
    def env_name(self) -> str | None:
        """The environment variable that holds the secret; None when it is elsewhere."""
        return self.written.removeprefix(ENV_PREFIX) if self.written.startswith(ENV_PREFIX) else None

    @property
    def file_path(self) -> str | None:
        """The file that holds the secret, as written; None when it is elsewhere."""
        return self.written.removeprefix(FILE_PREFIX) if self.written.startswith(FILE_PREFIX) else None

    @property
    def is_reference(self) -> bool:
        """True when the text only names the place of the secret: it may be shown and kept in clear."""
        return is_reference(self.written)

    def path(self, environ: Mapping[str, str]) -> Path | None:
        """The file that holds the secret, found from the app directory; None when it is elsewhere."""
        written = self.file_path
        return None if written is None else Path(environ.get(APP_DIR_VARIABLE, "")) / written

    def look_up(self, environ: Mapping[str, str]) -> str:
        """The secret in clear, as it is now. Raises NoSecret."""
        if (name := self.env_name) is not None:
            if value := environ.get(name):
                return value
            raise NoSecret(f"the environment variable {name} is not set")
        if (path := self.path(environ)) is not None:
            try:
                return read_secret_file(path)
            except CannotRead as error:
                raise NoSecret(str(error)) from None
        return self.written

    def resolve(self, environ: Mapping[str, str]) -> str | None:
        """As `look_up`; None when the secret cannot be had."""
        try:
            return self.look_up(environ)
        except NoSecret:
            return None

    def missing(self, environ: Mapping[str, str]) -> str | None:
        """Why the secret cannot be had now, as a part of a sentence; None when it can."""
        try:
            self.look_up(environ)
        except NoSecret as error:
            return str(error)
        return None


def is_reference(written: str) -> bool:
    """Whether a text names the place of a secret instead of being one."""
    return written.startswith((ENV_PREFIX, FILE_PREFIX))


def parse_secret(value: Any) -> SecretText:
    """Read the string form (`sk-…`, `env.NAME`, `file:PATH`) or the object form `{value, ref, type}`. Raises ValueError."""
    if isinstance(value, SecretText):
        return value
    if isinstance(value, Mapping):
        value = _from_object(value)
    if not isinstance(value, str):
        raise ValueError("must be text, env.NAME, file:PATH, or an object with value, ref and type")
    if value.startswith("vault."):
        raise ValueError("secrets in a vault are not supported; use env.NAME or file:PATH")
    if value == ENV_PREFIX:
        raise ValueError("env. needs the name of an environment variable, such as env.OPENAI_API_KEY")
    if value.startswith(FILE_PREFIX):
        _check_path(value.removeprefix(FILE_PREFIX))
    return SecretText(value)


def _check_path(path: str) -> None:
    if not path or path != path.strip() or "\0" in path:
        raise ValueError("file: needs the path of a file, such as file:secrets/openai or file:/run/secrets/openai")
    if path.startswith("//") or path.startswith("~"):
        raise ValueError("file: takes a plain path, relative to the app directory or absolute, such as file:/run/secrets/openai")


def _from_object(value: Mapping[str, Any]) -> Any:
    unknown = sorted(set(value) - _OBJECT_KEYS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known here; a secret object has value, ref and type")
    kind = value.get("type") or ("env" if value.get("from_env") or value.get("env_var") else "plain_text")
    if kind == "plain_text":
        return value.get("value")
    if kind == "env":
        return _with_prefix(ENV_PREFIX, value.get("env_var") or value.get("ref") or value.get("value"))
    if kind == "file":
        return _with_prefix(FILE_PREFIX, value.get("ref") or value.get("value"))
    raise ValueError(f"type {kind!r} is not supported; use plain_text, env or file")


def _with_prefix(prefix: str, name: Any) -> Any:
    return name if not isinstance(name, str) or name.startswith(prefix) else prefix + name


def _serialize(secret: SecretText) -> str:
    return secret.written if secret.is_reference else ""


Secret = Annotated[
    SecretText,
    PlainValidator(parse_secret),
    PlainSerializer(_serialize, return_type=str),
    WithJsonSchema(
        {
            "description": "A secret: the text itself, env.NAME, file:PATH, or an object with value, ref and type.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "value": {"type": "string"},
                        "ref": {"type": "string"},
                        "type": {"enum": ["plain_text", "env", "file"]},
                        "env_var": {"type": "string"},
                        "from_env": {"type": "boolean"},
                    },
                    "additionalProperties": False,
                },
            ],
        }
    ),
]
