"""Files of models and bundles on the Hugging Face hub, by way of its cache on this disk.

    hf://org/name@revision -> [hub] -> the directory of one commit
    files                  -> [hub] -> a repository

All of it is done by huggingface_hub, so that what others know of it holds here, too: HF_TOKEN or
`hf auth login` says who asks, HF_HOME where files are kept, HF_ENDPOINT which server is asked, and
HF_HUB_OFFLINE that none is. What was fetched before is used again, also where the hub cannot be
reached. No message shows a token. This module knows nothing of what the files mean.
"""

import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fastformers.cache import cache_directory
from fastformers.errors import FastformersError, InputError, StorageError
from fastformers.installation import how_to_install

# pathlib makes one slash of two.
_SCHEME = re.compile(r"hf:/{1,2}(?!/)")
_REPOSITORY = re.compile(
    r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
# Directory of a commit in the hub's cache.
_COMMIT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})$")
# What `from_pretrained` reads; the weights of other libraries and runtimes are left out.
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*_Dense/*.bin")
_CONFIGURATIONS = ("config.json", "modules.json", "adapter_config.json")
_OLD_WEIGHTS = "*pytorch_model*.bin*"
_OF_OTHERS = ("onnx/*", "openvino/*", "coreml/*", "flax/*", "tf/*", "original/*")
_HTTP_LIBRARIES = ("httpx", "httpx2", "requests")  # of the versions of huggingface_hub
_SHOWN_CHARACTERS = 200
_UNUSED_S = 30 * 24 * 3600.0
_LOG_IN = "log in by hf auth login or HF_TOKEN"


@dataclass(frozen=True)
class HubPlace:
    """A repository of models on the hub, at one revision.

    Attributes:
        repository: Owner and name: "org/name".
        revision: Branch, tag or commit; None for the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model's directory on this disk, and what it is called.

    Attributes:
        path: The directory.
        name: Its name, or the repository's: "org/name".
        revision: Commit of the repository; None for a directory of the user's own.
    """

    path: Path
    name: str
    revision: str | None = None


def parse_hub_uri(text: str) -> HubPlace | None:
    """The place that a URI such as hf://org/name@revision names; None for any other text.

    Raises:
        InputError: The URI names no repository.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return None
    place = parse_repository(text[scheme.end() :].rstrip("/"))
    if place is None:
        raise InputError(f"{text}: give hf://org/name, or hf://org/name@revision")
    return place


def parse_repository(text: str) -> HubPlace | None:
    """The place that org/name, or org/name@revision, names; None for any other text."""
    found = _REPOSITORY.fullmatch(text)
    return None if found is None else HubPlace(found["repository"], found["revision"])


def find_model(path: Path) -> FoundModel:
    """A model by its directory or, where there is none, by its repository.

    Args:
        path: Directory, or org/name, org/name@revision or hf://org/name of a repository. The
            directory of a commit in the hub's cache, such as an earlier call gave, is known as one.

    Raises:
        InputError: There is neither, or the repository is not for this user.
        StorageError: It is not in the cache, and the hub cannot be reached.
    """
    text = str(path)
    place = parse_hub_uri(text)
    if place is None and not path.exists():
        place = parse_repository(text)
    if place is not None:
        try:
            path = _fetch_model(place)
        except (InputError, StorageError) as error:
            raise type(error)(f"{text}: no such directory here, and {error}") from error
    commit = _COMMIT.search(str(path))
    if commit is None:
        return FoundModel(path=path, name=path.name)
    return FoundModel(path=path, name=f"{commit[1]}/{commit[2]}", revision=commit[3])


def fetch_files(place: HubPlace, *names: str, token: str | None = None) -> Path:
    """Files of a repository in the hub's cache.

    Args:
        place: The repository.
        names: Names of the files, or patterns of them.
        token: Who asks; by default who is logged in.

    Returns:
        The directory of one commit, called by its name. It has those of the files that the
        repository has, and may have others; without any it may not exist.

    Raises:
        InputError: The repository is not there or not for this user, or has no such revision.
        StorageError: The files are not in the cache, and the hub cannot be reached.
    """
    with _hub_errors(place, token):
        from huggingface_hub import snapshot_download

        path = snapshot_download(
            place.repository,
            revision=place.revision,
            allow_patterns=list(names),
            ignore_patterns=list(_OF_OTHERS),
            token=token,
        )
    return Path(path)


def without_links(snapshot: Path, *names: str) -> Path:
    """Files of a commit as files of their own, in the cache of fastformers.

    The hub's cache has links to files of other names. OpenVINO (2026.4) and onnxruntime 1.24.0
    refuse weights that lie elsewhere than their graph. What is not opened for 30 days is removed
    when other files come in.

    Args:
        snapshot: Directory that `fetch_files` gave.
        names: Names of the files; those that are not there are left out.

    Returns:
        A directory called by the commit. Its files take no room of their own where both caches are
        on one disk.
    """
    cache = cache_directory("hub")
    target = cache / snapshot.name
    found = [name for name in names if (snapshot / name).is_file()]
    if not all((target / name).is_file() for name in found):
        cache.mkdir(parents=True, exist_ok=True)
        _remove_unused(cache)
        with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=cache) as scratch:
            made = Path(scratch) / target.name
            made.mkdir()
            for name in found:
                _link_or_copy((snapshot / name).resolve(), made / name)
            shutil.rmtree(target, ignore_errors=True)  # what lacked a file
            with suppress(OSError):  # another process was first, with the same
                os.replace(made, target)
    os.utime(target)
    return target


def push_files(
    repository: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Put files into a repository by one commit; the repository is made if it is not there.

    Args:
        repository: "org/name".
        files: Path or content of each file, by its name there.
        message: What the commit says.
        private: Whether a new repository is private; None for the owner's default.
        token: Who writes; by default who is logged in.

    Returns:
        URL of the commit.

    Raises:
        InputError: It names no repository, or the user may not write there.
        StorageError: The hub cannot be reached.
    """
    place = parse_hub_uri(repository) or parse_repository(repository)
    if place is None or place.revision is not None:
        raise InputError(f"{repository}: give the repository as org/name")
    with _hub_errors(place, token):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token, library_name="fastformers")
        api.create_repo(place.repository, private=private, exist_ok=True)
        additions = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in files.items()
        ]
        commit = api.create_commit(place.repository, additions, commit_message=message)
    return str(commit.commit_url)


def _fetch_model(place: HubPlace) -> Path:
    """Directory of a model in the hub's cache; weights in safetensors are preferred."""
    path = fetch_files(place, *_MODEL_FILES)
    if not any((path / name).is_file() for name in _CONFIGURATIONS):
        raise InputError(f"{place}: holds no model (none of {', '.join(_CONFIGURATIONS)})")
    if any(path.glob("*.safetensors")) or any(path.glob("0_*/*.safetensors")):
        return path
    return fetch_files(replace(place, revision=path.name), *_MODEL_FILES, _OLD_WEIGHTS)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)


def _remove_unused(cache: Path) -> None:
    for entry in cache.iterdir():
        with suppress(OSError):  # gone already
            if time.time() - entry.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(entry)


@contextmanager
def _hub_errors(place: HubPlace, token: str | None) -> Iterator[None]:
    """Turn what the hub and its library refuse into one line."""
    try:
        import huggingface_hub.errors as hub
    except ModuleNotFoundError as error:
        raise InputError(
            f"{place}: huggingface_hub is not installed: {how_to_install('hub')}"
        ) from error
    try:
        with _quiet_library():
            yield
    except hub.GatedRepoError as error:
        raise InputError(f"{place}: is gated; ask for access on its page, and {_LOG_IN}") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(
            f"{place}: the hub has no such repository, or it is private; check the name, and "
            f"{_LOG_IN} if it is yours"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{place}: the repository has no such revision") from error
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) as error:
        raise _unreachable(place, error.__cause__ or error, token) from error
    except hub.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise InputError(
                f"{place}: the hub refuses it ({error.response.status_code}); {_LOG_IN}, with a "
                "token that may do this"
            ) from error
        raise _unreachable(place, error, token) from error
    except ValueError as error:  # names, and the metadata of a model card
        raise InputError(f"{place}: {_one_line(error, token)}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _HTTP_LIBRARIES:
            raise
        raise _unreachable(place, error, token) from error


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Let huggingface_hub log nothing but errors, and draw bars in a terminal alone."""
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    verbosity = hub_logging.get_verbosity()
    has_bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or sys.stderr.isatty()
    hub_logging.set_verbosity(logging.ERROR)
    if not has_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if not has_bars:
            enable_progress_bars()


def _unreachable(place: HubPlace, reason: BaseException, token: str | None) -> FastformersError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return StorageError(
            f"{place}: is not in the hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE "
            "forbids to fetch it; unset it, or fetch it once"
        )
    endpoint = re.sub(r"//[^/@]*@", "//***@", constants.ENDPOINT)
    return StorageError(
        f"{place}: {endpoint} cannot be reached ({_one_line(reason, token)}); check the network, "
        "or HF_ENDPOINT"
    )


def _one_line(error: BaseException, token: str | None) -> str:
    """What an error says, without any token."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split()) or type(error).__name__
    for secret in filter(None, (token, get_token(), os.environ.get("HF_TOKEN"))):
        text = text.replace(secret, "***")
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
