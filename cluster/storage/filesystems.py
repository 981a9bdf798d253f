"""The filesystem of a path: a disk, or a bucket by its URI.

    path or URI, options -> [filesystems] -> Store, path in it

A `Store` travels to other processes as what it is named by; the client of a service is made where
it is used, once in each process: one that travels would lose how it retries. This module knows
nothing of what the files hold.
"""

import os
import re
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pyarrow as pa
import pyarrow.fs

from fastformers.cluster.storage.options import KEYS, NO_OPTIONS, StorageOptions, hide_credentials
from fastformers.cluster.storage.patient import PatientHandler
from fastformers.cluster.storage.retries import Service
from fastformers.errors import InputError

# Requests that one process may have under way at a time; pyarrow's client of S3 opens as many
# connections as there are threads of its pool, and at least 25.
MAX_REQUESTS = 64
# The client itself tries a request this many times, in some seconds, before `retries` learns of it.
# With 10 attempts an outage would not be noticed for 85 to 115 s.
CLIENT_ATTEMPTS = 4
CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S = 5.0, 20.0
CLIENT_LIMIT_S = 10
_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs"}
_URI = re.compile(
    # A secret may hold slashes.
    r"(?P<scheme>[a-z0-9]+)://(?:(?P<user>[^/@:]*(?::[^@]*)?)@)?(?P<bucket>[^/?]*)(?P<path>.*)",
    re.DOTALL,
)
_QUERY = re.compile(r"\?(\w+=[^/]*)$")
_building = threading.Lock()


@dataclass(frozen=True)
class Store:
    """This machine's disks, or one bucket of a service.

    Attributes:
        scheme: "file", "s3", "gs" or "abfs".
        bucket: Name of the bucket or container; "" for the disks.
        options: How to reach it.
        has_travelled: Whether another process has made it, so that nobody looks at this one.
    """

    scheme: str
    bucket: str = ""
    options: StorageOptions = NO_OPTIONS
    has_travelled: bool = field(default=False, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["Store"], tuple[str, str, StorageOptions, bool]]:
        return Store, (self.scheme, self.bucket, self.options, True)

    @property
    def is_local(self) -> bool:
        """Whether files are on this machine's disks."""
        return self.scheme == "file"

    @property
    def service(self) -> Service:
        """The bucket as this process knows it."""
        return _service(self, os.getpid(), self.has_travelled)

    @property
    def client(self) -> pyarrow.fs.FileSystem:
        """The client of this process, which gives up after some seconds."""
        with _building:
            return _client(self, os.getpid())

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """A filesystem that waits for the service, and travels as this store does."""
        if self.is_local:
            return pyarrow.fs.LocalFileSystem()
        return pyarrow.fs.PyFileSystem(PatientHandler(self))

    def uri_of(self, path: str) -> str:
        """A path in it, as a user would write it."""
        return path if self.is_local else f"{self.scheme}://{path}"


def connect(uri: str, options: StorageOptions = NO_OPTIONS) -> tuple[Store, str]:
    """Store and path in it of a local path or a URI such as s3://bucket/key.

    A URI may name options that are not secret: s3://bucket/key?region=eu-west-1. No request is
    made.

    Raises:
        InputError: The path is empty, the scheme is unknown, the URI has no bucket, or it holds
            credentials.
    """
    if not uri:
        raise InputError("a path is empty, maybe a variable of the shell; name a directory")
    if "://" not in uri:
        return Store("file"), str(Path(uri).expanduser().absolute())
    found = _URI.fullmatch(uri)
    if found is None or found["scheme"] not in {"file", *_SCHEMES}:
        raise InputError(f"{_hide(uri)}: unknown scheme; give a path, s3://, gs:// or abfs://")
    if found["scheme"] == "file":
        if found["bucket"]:
            raise InputError(f"{_hide(uri)}: a path after file:// begins with /")
        return Store("file"), unquote(found["path"])
    return _connect_bucket(uri, found, options)


def resolve(uri: str, options: StorageOptions = NO_OPTIONS) -> tuple[pyarrow.fs.FileSystem, str]:
    """Filesystem and path of a local path or a URI, see `connect`.

    The filesystem waits for a service that does not answer, also in the middle of a file, and
    travels to other processes by its name.

    Raises:
        InputError: As `connect` raises it.
    """
    store, path = connect(uri, options)
    return store.filesystem, path


def _connect_bucket(uri: str, found: re.Match[str], options: StorageOptions) -> tuple[Store, str]:
    scheme, bucket, path = _SCHEMES[found["scheme"]], found["bucket"], found["path"]
    named: dict[str, str] = {}
    if (query := _QUERY.search(path)) is not None:
        path = path[: query.start()]
        named = dict(parse_qsl(query[1]))
    if user := found["user"]:
        if scheme == "abfs" and ":" not in user:  # abfs://container@account.dfs.core.windows.net
            bucket, named["account_name"] = user, bucket.partition(".")[0]
        elif scheme == "gs" and user == "anonymous":
            named["anonymous"] = "true"
        else:
            raise InputError(
                f"{_hide(uri)}: credentials in a URI would be shown; give them by "
                "--storage-options or the environment"
            )
    unknown = [key for key in named if key not in KEYS[scheme]]
    if unknown:
        raise InputError(f"{_hide(uri)}: {scheme}:// has no option {unknown[0]!r}")
    if any(key.endswith(("key", "token", "secret", "_id")) for key in named):
        raise InputError(f"{_hide(uri)}: give credentials by --storage-options or the environment")
    if not bucket:
        raise InputError(f"{_hide(uri)}: names no bucket")
    try:
        store = Store(scheme, bucket, options.replace(named))
    except InputError as error:
        raise InputError(f"{uri}: {error}") from None
    return store, f"{bucket}{unquote(path)}".rstrip("/")


def _hide(uri: str) -> str:
    """A URI without what may be a secret in it."""
    uri = re.sub(r"://[^/@]*@", "://***@", hide_credentials(uri))
    return re.sub(r"\?(\w+=.*)$", "?***", uri)


@cache
def _service(store: Store, pid: int, has_travelled: bool) -> Service:
    endpoint = _endpoint(store)
    return Service(
        name=store.uri_of(store.bucket),
        endpoint=endpoint or store.uri_of(store.bucket),
        redact=store.options.redact,
        tells=not has_travelled,
        has_answered=has_travelled,
    )


def _endpoint(store: Store) -> str | None:
    """The endpoint that the options or the environment name."""
    endpoint: str | None = store.options.of_scheme(store.scheme).get("endpoint_override")
    if endpoint is None and store.scheme == "s3":
        variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        endpoint = next((os.environ[name] for name in variables if os.environ.get(name)), None)
    return endpoint


@cache
def _client(store: Store, pid: int) -> pyarrow.fs.FileSystem:
    if pa.io_thread_count() < MAX_REQUESTS:
        pa.set_io_thread_count(MAX_REQUESTS)
    options = store.options.of_scheme(store.scheme)
    endpoint = _endpoint(store)
    options.pop("endpoint_override", None)
    if endpoint is not None and "://" in endpoint:
        scheme, _, endpoint = endpoint.partition("://")
        options["scheme"] = scheme
        endpoint = endpoint.rstrip("/")
    build = {"s3": _build_s3, "gs": _build_gcs, "abfs": _build_azure}[store.scheme]
    try:
        return build(store.bucket, endpoint, options)
    except (ValueError, TypeError) as error:  # TypeError: options that exclude each other
        reason = store.options.redact(" ".join(str(error).split()))
        raise InputError(f"{store.uri_of(store.bucket)}: {reason} (--storage-options)") from None


def _build_s3(bucket: str, endpoint: str | None, options: dict[str, Any]) -> pyarrow.fs.FileSystem:
    region = options.pop("region", None) or os.environ.get("AWS_REGION")
    region = region or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = pyarrow.fs.resolve_s3_region(bucket) if endpoint is None else "us-east-1"
    return pyarrow.fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        allow_delayed_open=True,  # one request a file instead of three
        background_writes=False,  # a file is written in one piece
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=CLIENT_ATTEMPTS),
        **options,
    )


def _build_gcs(bucket: str, endpoint: str | None, options: dict[str, Any]) -> pyarrow.fs.FileSystem:
    return pyarrow.fs.GcsFileSystem(
        endpoint_override=endpoint,
        retry_time_limit=timedelta(seconds=CLIENT_LIMIT_S),
        **options,
    )


def _build_azure(
    bucket: str, endpoint: str | None, options: dict[str, Any]
) -> pyarrow.fs.FileSystem:
    account = options.pop("account_name", None) or os.environ.get("AZURE_STORAGE_ACCOUNT")
    if account is None:
        raise InputError(
            f"abfs://{bucket}: no account: give account_name in --storage-options, set "
            "AZURE_STORAGE_ACCOUNT, or write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/"
        )
    if not {"account_key", "sas_token", "client_secret"} & options.keys():
        for key, name in (("account_key", "KEY"), ("sas_token", "SAS_TOKEN")):
            if value := os.environ.get(f"AZURE_STORAGE_{name}"):
                options[key] = value
                break
    if scheme := options.pop("scheme", None):
        options.update(blob_storage_scheme=scheme, dfs_storage_scheme=scheme)
    if endpoint is not None:
        options.update(blob_storage_authority=endpoint, dfs_storage_authority=endpoint)
    return pyarrow.fs.AzureFileSystem(account, **options)
