"""Tell from a file's first bytes what it holds, whatever it is called.

    first bytes -> [file_kind] -> compression and encoding, or a refusal by name -> file_bytes

A name is a promise that exports, downloads and renamed files break: bytes of another kind would be
read as text as far as they go, and every row would be bad. This module opens no file.
"""

import codecs
import re
import string

# Bytes that tell what a file holds.
HEAD_BYTES = 2**12
UTF_8 = "utf-8"
_COMPRESSIONS = {
    "gzip": rb"\x1f\x8b\x08",
    "bz2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "zstd": rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18",
}
# UTF-32 is before UTF-16, whose mark begins its own.
_BYTE_ORDER_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_PARQUET = rb"PAR[1E]"
# What cannot be read, by how it begins, and what to do about it.
_FOREIGN = {
    rb"PK(\x03\x04|\x05\x06)": ("a zip archive (or an .xlsx workbook)", "unpack it"),
    rb"\xfd7zXZ\x00": ("xz-compressed", "decompress it, or compress it with gzip or zstd"),
    rb"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    rb"Rar!\x1a\x07": ("a rar archive", "unpack it"),
    rb"\x04\x22\x4d\x18": ("lz4-compressed", "decompress it, or compress it with gzip or zstd"),
    rb"\xff\x06\x00\x00sNaPpY": ("snappy-compressed", "decompress it"),
    rb"(?s:.{257})ustar": ("a tar archive", "unpack it"),
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Excel workbook", "save it as CSV"),
    rb"Obj\x01": ("Avro", "convert it to Parquet"),
    rb"ORC[\x00-\x08\x0b\x0c\x0e-\x1f]": ("ORC", "convert it to Parquet"),
    rb"ARROW1\x00\x00|\xff\xff\xff\xff[\x00-\xff]{3}\x00": ("Arrow IPC", "convert it to Parquet"),
    rb"SQLite format 3\x00": ("an SQLite database", "export the table as CSV"),
    rb"%PDF-": ("a PDF document", "extract its text"),
    rb"version https://git-lfs": ("a Git LFS pointer, not the file itself", "run git lfs pull"),
    rb"\s*<(?i:!doctype html|html)": ("an HTML page", "download the file again"),
}


def find_compression(head: bytes) -> str | None:
    """What a file is compressed with, in pyarrow's words; None if it is not."""
    return next((name for name, magic in _COMPRESSIONS.items() if re.match(magic, head)), None)


def is_parquet(head: bytes) -> bool:
    """Whether a file begins as Parquet does."""
    return re.match(_PARQUET, head) is not None


def refuse_foreign(head: bytes) -> None:
    """Refuse a kind of file that no reader can read.

    Raises:
        ValueError: It is of such a kind; names the kind and what to do.
    """
    for magic, (name, remedy) in _FOREIGN.items():
        if re.match(magic, head):
            raise ValueError(f"it is {name}; {remedy}")


def find_text_encoding(head: bytes, named: str | None) -> str:
    """Encoding of a text file.

    Args:
        head: Its first bytes, decompressed.
        named: What the user says that it is, or None.

    Raises:
        ValueError: It is no text that can be read; names what it is and what to do.
    """
    refuse_foreign(head)
    if is_parquet(head):
        raise ValueError("it is Parquet; let its name end in .parquet")
    if (compression := find_compression(head)) is not None:
        raise ValueError(f"it is {compression}-compressed twice; decompress it once")
    if named is not None:
        return named
    for encoding, marks in _BYTE_ORDER_MARKS.items():
        if head.startswith(marks):
            return encoding
    for first, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        zeros, others = head[first:64:2], head[1 - first : 64 : 2]
        if len(zeros) > 1 and not any(zeros) and all(others):
            raise ValueError(f"it seems to be {encoding.upper()}; pass --encoding {encoding}")
    return UTF_8


def keeps_ascii(encoding: str) -> bool:
    """Whether a byte of ASCII always means itself: a line break, a quote, a bracket.

    Lines and records of such a file can be told apart, and a file be cut, without decoding it.
    UTF-8 is so, and most encodings of one byte a character; GBK and Shift JIS are not.

    Raises:
        LookupError: It is no encoding of text.
    """
    if codecs.lookup(encoding).name in (UTF_8, "utf-8-sig"):
        return True
    is_one_byte = len(bytes(range(256)).decode(encoding, "replace")) == 256
    ascii_bytes = string.printable.encode("ascii")
    return is_one_byte and ascii_bytes.decode(encoding, "replace") == string.printable
