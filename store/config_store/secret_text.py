"""A secret as somebody wrote it: the text itself, or `env.NAME`, which is looked up when it is needed and never stored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

ENV_PREFIX = "env."
_OBJECT_KEYS = frozenset({"value", "ref", "type", "env_var", "from_env"})


@dataclass(frozen=True, slots=True)
class SecretText:
    """What stands in the file, the request or the store. Never printed."""

    written: str = field(repr=False)

    @property
    def env_name(self) -> str | None:
        """The environment variable that holds the secret; None when the text is the secret."""
        return self.written.removeprefix(ENV_PREFIX) if self.written.startswith(ENV_PREFIX) else None

    def resolve(self, environ: Mapping[str, str]) -> str | None:
        """The secret in clear; None when its environment variable is not set or empty."""
        name = self.env_name
        if name is None:
            return self.written
        return environ.get(name) or None


def parse_secret(value: Any) -> SecretText:
    """Read the string form (`sk-…`, `env.NAME`) or the object form `{value, ref, type}`. Raises ValueError."""
    if isinstance(value, SecretText):
        return value
    if isinstance(value, Mapping):
        value = _from_object(value)
    if not isinstance(value, str):
        raise ValueError("must be text, env.NAME, or an object with value, ref and type")
    if value.startswith("vault."):
        raise ValueError("secrets in a vault are not supported; use env.NAME")
    if value == ENV_PREFIX:
        raise ValueError("env. needs the name of an environment variable, such as env.OPENAI_API_KEY")
    return SecretText(value)


def _from_object(value: Mapping[str, Any]) -> Any:
    unknown = sorted(set(value) - _OBJECT_KEYS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known here; a secret object has value, ref and type")
    kind = value.get("type") or ("env" if value.get("from_env") or value.get("env_var") else "plain_text")
    if kind == "plain_text":
        return value.get("value")
    if kind == "env":
        name = value.get("env_var") or value.get("ref") or value.get("value")
        return name if not isinstance(name, str) or name.startswith(ENV_PREFIX) else ENV_PREFIX + name
    raise ValueError(f"type {kind!r} is not supported; use plain_text or env")


def _serialize(secret: SecretText) -> str:
    return secret.written if secret.env_name else ""


Secret = Annotated[
    SecretText,
    PlainValidator(parse_secret),
    PlainSerializer(_serialize, return_type=str),
    WithJsonSchema(
        {
            "description": "A secret: the text itself, env.NAME, or an object with value, ref and type.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {
                        "value": {"type": "string"},
                        "ref": {"type": "string"},
                        "type": {"enum": ["plain_text", "env"]},
                        "env_var": {"type": "string"},
                        "from_env": {"type": "boolean"},
                    },
                    "additionalProperties": False,
                },
            ],
        }
    ),
]
