"""The token that Ray's processes ask of each other, in a file that only its owner can read.

    [access_token] -> auth_token -> ray up, ray job submit

Whoever has the token can run any code on the cluster. It is never printed and stands in no other
file.
"""

import os
import secrets
from pathlib import Path

from fastformers.errors import InputError

TOKEN_FILE = "auth_token"
# As many bytes as `ray get-auth-token --generate` takes.
_TOKEN_BYTES = 32
_OWNER_ONLY = 0o600


def write_token(directory: Path) -> Path:
    """Make a new token in a directory, or keep the one that is there; returns the file's path.

    A cluster that runs keeps the token it was started with, so files that are written again must
    not bring another.

    Raises:
        InputError: The token that is there is empty, or others may read it.
    """
    path = directory / TOKEN_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    except FileExistsError:
        check_token(path)
        return path
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_TOKEN_BYTES))
    return path


def check_token(path: Path) -> None:
    """Refuse a token that is no secret.

    Raises:
        InputError: The file is empty, or others than its owner may read it.
    """
    status = path.stat()
    if status.st_size == 0:
        raise InputError(f"{path}: the token is empty; delete the file, and a new one is made")
    if status.st_mode & 0o077:
        raise InputError(f"{path}: others may read the token; chmod 600 {path}, or delete it")
