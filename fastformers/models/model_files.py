"""Check the files of a model's directory before a library opens them: one line names a broken one.

    directory -> [model_files] -> checkpoint, loading, finetune

A download that was cut short, a clone without git-lfs or a configuration written by hand ends in
the parsers of several libraries, whose errors name no file. This module knows formats of files, and
nothing of architectures or tasks.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastformers.digest import digest_file
from fastformers.errors import InputError

CONFIG_FILE = "config.json"
MODULES_FILE = "modules.json"
TEACHER_FILE = "finetune.json"  # what finetune writes beside the teacher that it made
ADAPTER_FILE = "adapter_config.json"
_LFS_POINTER = b"version https://git-lfs"
_CHECKED = (".json", ".safetensors", ".bin", ".model", ".txt")
_LENGTH_BYTES = 8  # of a safetensors file: the length of its header


def read_config(directory: Path) -> dict[str, Any]:
    """Check all files of a directory and read its configuration.

    Raises:
        InputError: There is no configuration, or a file is broken; the message names it.
    """
    if not (directory / CONFIG_FILE).is_file():
        raise InputError(f"{directory}: no config.json; expected a Hugging Face model directory")
    check_files(directory)
    config = read_json(directory / CONFIG_FILE)
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{directory}: config.json names no architecture (model_type)")
    _check_classes(config, directory / CONFIG_FILE)
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        raise InputError(
            f"{directory / CONFIG_FILE}: quantization_config says the weights are quantized "
            f"({method}); save the model in float (model.dequantize()) and give that"
        )
    return config


def check_model_directory(path: Path) -> None:
    """Refuse a directory that holds no model, before a library is loaded that reads it.

    Raises:
        InputError: There is no configuration, or a file is broken; the message names it.
    """
    if not (is_sentence_encoder(path) or is_adapter(path)):
        read_config(path)


def check_teacher_output(output: Path, encoder: Path) -> None:
    """Refuse to put a teacher where something else is.

    Args:
        output: Directory of the teacher.
        encoder: Directory of the model that it is made from.

    Raises:
        InputError: The output is the encoder itself, or holds what no fine-tuning made.
    """
    if output.exists() and output.samefile(encoder):
        raise InputError(f"--output {output}: is the encoder; give a directory of its own")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output.is_dir() and read_json(output / TEACHER_FILE)):
        raise InputError(
            f"--output {output}: holds something that finetune did not make; give another "
            "directory, or remove it"
        )


def is_sentence_encoder(path: Path) -> bool:
    """Whether a directory is a sentence-transformers directory."""
    return (path / MODULES_FILE).is_file()


def check_files(directory: Path) -> None:
    """Refuse a directory with a file that is only a pointer, was cut short or lacks its shards.

    Raises:
        InputError: A file is broken; the message names it.
    """
    for file in sorted(directory.iterdir()):
        if file.suffix in _CHECKED and file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
                    raise InputError(
                        f"{file}: a Git LFS pointer in place of the file; run `git lfs pull` there"
                    )
            if file.suffix == ".safetensors":
                _check_safetensors(file)
            elif file.name.startswith(("pytorch_model", "adapter_model")) and file.suffix == ".bin":
                _check_torch_file(file)
            elif file.name.endswith(".index.json"):
                _check_shards(file)


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter of another model."""
    return (path / ADAPTER_FILE).is_file()


def adapter_base(path: Path) -> Path:
    """Directory of the model that an adapter changes.

    Raises:
        InputError: It is not on this machine.
    """
    name = str(read_json(path / ADAPTER_FILE).get("base_model_name_or_path"))
    base = next((one for one in (path / name, Path(name)) if one.is_dir()), None)
    if base is None:
        raise InputError(
            f"{path / ADAPTER_FILE}: an adapter of {name!r}, which is no directory here; give the "
            "merged model, or put its directory into base_model_name_or_path"
        )
    return base


def digest_checkpoint(directory: Path) -> list[str]:
    """Name and SHA-256 of each file of a model's directory, at any depth, but of hidden ones.

    What finetune wrote of its teacher is none of them. Of an adapter those of its base are, too.
    """
    found: list[str] = []
    for folder in [directory, *([adapter_base(directory)] if is_adapter(directory) else [])]:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder)
            is_hidden = any(part.startswith(".") for part in name.parts)
            if file.is_file() and not is_hidden and str(name) != TEACHER_FILE:
                found.append(f"{name} {digest_file(file)}")
    return found


def read_json(file: Path) -> dict[str, Any]:
    """Fields of a JSON file; none if there is no such file.

    Raises:
        InputError: It is no JSON object.
    """
    if not file.is_file():
        return {}
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON, or cut short: {error}") from error
    if not isinstance(fields, dict):
        raise InputError(f"{file}: a JSON {type(fields).__name__}; expected an object")
    return fields


def weight_shapes(directory: Path, stem: str) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of each tensor in the safetensors files whose names begin with `stem`."""
    for file in sorted(directory.glob(f"{stem}*.safetensors")):
        for name, tensor in _read_header(file).items():
            if name != "__metadata__":
                yield name, tensor["shape"]


def _check_classes(config: Mapping[str, Any], file: Path) -> None:
    names = config.get("id2label")
    if names is None:
        return
    need = 'give an object with a name for each class, from "0" on without gaps'
    if not isinstance(names, dict):
        raise InputError(f"{file}: id2label is a {type(names).__name__}; {need}")
    if set(names) != {str(index) for index in range(len(names))}:
        raise InputError(f"{file}: id2label has the keys {', '.join(map(str, names))}; {need}")


def _check_safetensors(file: Path) -> None:
    header = _read_header(file)
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    with file.open("rb") as opened:
        start = _LENGTH_BYTES + int.from_bytes(opened.read(_LENGTH_BYTES), "little")
    expected, found = start + max(ends, default=0), file.stat().st_size
    if found != expected:
        raise InputError(
            f"{file}: has {found:,} of {expected:,} bytes, as if a download was cut short; fetch "
            "it again"
        )


def _read_header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        is_inside = length <= file.stat().st_size - _LENGTH_BYTES
        content = opened.read(length) if is_inside else b""
    try:
        header: dict[str, Any] = json.loads(content)
        for name, tensor in header.items():
            if name != "__metadata__":
                _, _ = tensor["data_offsets"]
                list(tensor["shape"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{file}: not a safetensors file, or cut short in its header; fetch it again"
        ) from error
    return header


def _check_torch_file(file: Path) -> None:
    """Refuse a file of weights that is neither a whole zip, as PyTorch writes, nor a pickle."""
    with file.open("rb") as opened:
        start = opened.read(2)
    is_pickle = start[:1] == b"\x80"
    if not is_pickle and not zipfile.is_zipfile(file):
        raise InputError(f"{file}: not a PyTorch file, or cut short; fetch it again")


def _check_shards(index: Path) -> None:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict):
        raise InputError(f"{index}: has no weight_map")
    missing = [name for name in sorted(set(names.values())) if not (index.parent / name).is_file()]
    if missing:
        raise InputError(f"{index}: lists {missing[0]}, which is not there; fetch it")
