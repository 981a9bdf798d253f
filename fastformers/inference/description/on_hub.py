"""A bundle as a repository of the Hugging Face hub: fetched at one commit, pushed in one commit.

    hf://org/name -> [on_hub] -> directory of the bundle -> open_bundle
    bundle, its card -> [on_hub] -> commit of the repository

This module knows which files a bundle has, and nothing of what they say.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastformers.errors import BundleError
from fastformers.files.hub import HubPlace, fetch_files, push_files, without_links
from fastformers.inference.description.model_card import card_of
from fastformers.inference.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    missing_manifest,
    read_fields,
)

if TYPE_CHECKING:
    from fastformers.inference.bundle import Bundle


def fetch_bundle(place: HubPlace, token: str | None) -> tuple[Path, str]:
    """Fetch the files of a repository's bundle at one commit.

    Args:
        place: The repository.
        token: Who asks the hub; None for who is logged in.

    Returns:
        The directory, whose files are still to be verified, and the URI of that commit.

    Raises:
        BundleError: There is no bundle, or its manifest is damaged.
        InputError: The repository is not there or not for this user.
        StorageError: It is not in the hub's cache, and the hub cannot be reached.
    """
    path = fetch_files(place, MANIFEST_FILE, token=token)
    if not (path / MANIFEST_FILE).is_file():
        raise BundleError(missing_manifest(str(place)))
    commit = replace(place, revision=path.name)
    fields, _ = read_fields((path / MANIFEST_FILE).read_bytes(), str(commit))
    files = (MANIFEST_FILE, *fields["files"])
    return without_links(fetch_files(commit, *files, token=token), *files), str(commit)


def push_bundle(
    bundle: "Bundle", repository: str, *, message: str, private: bool | None, token: str | None
) -> str:
    """Put a bundle and its model card into a repository; see `Bundle.push_to_hub`."""
    files = {name: bundle.path / name for name in (MANIFEST_FILE, *bundle.files)}
    return push_files(
        repository,
        {**files, CARD_FILE: card_of(bundle).encode()},
        message=message,
        private=private,
        token=token,
    )
