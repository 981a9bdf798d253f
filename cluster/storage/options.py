"""What a service of buckets must be told to be reached: its endpoint, its region, who asks.

    --storage-options, URI -> [options] -> filesystems

Some of it is secret. A `StorageOptions` travels to other processes when it is pickled; what it
shows of itself holds no secret, and `redact` takes them out of what others say. This module knows
nothing of files.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastformers.errors import InputError

_S3 = ("region", "access_key", "secret_key", "session_token", "role_arn", "session_name")
_S3_TRUST = ("external_id", "force_virtual_addressing", "tls_ca_file_path")
_GCS = ("project_id", "target_service_account")
_AZURE = ("account_name", "account_key", "sas_token", "client_id", "client_secret", "tenant_id")
# Keys by the scheme of a URI.
KEYS: dict[str, tuple[str, ...]] = {
    "s3": ("endpoint_override", "scheme", "anonymous", *_S3, *_S3_TRUST),
    "gs": ("endpoint_override", "scheme", "anonymous", *_GCS),
    "abfs": ("endpoint_override", "scheme", *_AZURE),
}
_ALL_KEYS = tuple(dict.fromkeys(key for keys in KEYS.values() for key in keys))
_SECRETS = (
    *("access_key", "secret_key", "session_token", "external_id"),
    *("account_key", "sas_token", "client_secret"),
)
_SECRET_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"),
)
_SWITCHES = ("anonymous", "force_virtual_addressing")


# A path keeps one of the slashes of a URI that was taken for a file's name.
_CREDENTIALS = re.compile(r"""(\w://?)[^\s/@"':]*:(?!\d{1,5}(?:/|$))[^\s@"']*@""")
_SECRET_QUERY = re.compile(
    r"""([?&]\w*(?:key|key_id|token|secret|password|sig|signature)=)[^\s&"']+""", re.IGNORECASE
)


def hide_credentials(text: str) -> str:
    """A text without the keys and secrets of the URIs in it, such as s3://KEY:SECRET@bucket."""
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


class StorageOptions:
    """Options by key, of all services together; each takes those that it knows."""

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Check the keys and the types of the values.

        Raises:
            InputError: A key is unknown, or a value has the wrong type; no value is shown.
        """
        checked = {key: _check(key, value) for key, value in (values or {}).items()}
        self._items = tuple(sorted(checked.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorageOptions) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        shown = (f"{key}={'***' if key in _SECRETS else value}" for key, value in self._items)
        return f"StorageOptions({', '.join(shown)})"

    def __reduce__(self) -> tuple[type["StorageOptions"], tuple[dict[str, str | bool]]]:
        return StorageOptions, (dict(self._items),)

    def of_scheme(self, scheme: str) -> dict[str, Any]:
        """The options that a service knows, by key."""
        return {key: value for key, value in self._items if key in KEYS[scheme]}

    def replace(self, values: Mapping[str, Any]) -> "StorageOptions":
        """These options, with some values replaced.

        Raises:
            InputError: A key is unknown, or a value has the wrong type.
        """
        return StorageOptions({**dict(self._items), **values})

    def redact(self, text: str) -> str:
        """A text without the secrets of these options and of the environment."""
        secrets = [str(value) for key, value in self._items if key in _SECRETS]
        secrets += [os.environ.get(name, "") for name in _SECRET_VARIABLES]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


NO_OPTIONS = StorageOptions()


def parse_storage_options(text: str) -> StorageOptions:
    """Options from JSON, or from a file of JSON named by @FILE.

    Raises:
        InputError: It cannot be read, or is no object of known keys; no value is shown.
    """
    if text.startswith("@"):
        named = text[1:]
        try:
            text = Path(named).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8"
            raise InputError(f"{named}: cannot be read: {reason}") from None
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError('give a JSON object such as {"region": "eu-west-1"}, or @FILE')
    return StorageOptions(values)


def _check(key: str, value: Any) -> str | bool:
    if key not in _ALL_KEYS:
        raise InputError(f"no key {key!r}; there are {', '.join(_ALL_KEYS)}")
    if key in _SWITCHES:
        if value not in (True, False, "true", "false"):
            raise InputError(f"{key} must be true or false")
        return value in (True, "true")
    if not isinstance(value, str) or not value:
        raise InputError(f"{key} must be a text that is not empty")
    if key == "endpoint_override" and "@" in value:
        raise InputError("endpoint_override must hold no user and no password")
    if key == "scheme" and value not in ("http", "https"):
        raise InputError("scheme must be http or https")
    return value
