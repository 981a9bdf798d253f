r"""How text files are written, where their bytes do not tell: encoding, CSV dialect, longest row.

    flags of any command that reads files -> [text_file_config] -> ReadOptions -> readers

Corpora and labeled files are read by the same readers, so their flags are the same too. This module
knows nothing of files or columns.
"""

from dataclasses import dataclass, field

from fastformers.errors import InputError
from fastformers.files.file_kind import keeps_ascii
from fastformers.options import check_at_least, option

# What may separate fields of CSV where nobody says it; the first whose header has the columns does.
DELIMITERS = ",\t;|"


@dataclass(frozen=True, kw_only=True)
class TextFileConfig:
    """Encoding of text files, the marks of CSV, and how long a row may be."""

    encoding: str | None = field(
        default=None,
        metadata=option(
            "encoding of text files, such as latin-1 (UTF-8; UTF-16 and UTF-32 by their mark)"
        ),
    )
    csv_delimiter: str | None = field(
        default=None,
        metadata=option(
            r"what separates fields of CSV, or \t (by name and header line)", metavar="CHARACTER"
        ),
    )
    csv_quote: str = field(
        default='"',
        metadata=option("what encloses fields of CSV, or none", metavar="CHARACTER"),
    )
    csv_escape: str | None = field(
        default=None,
        metadata=option("what escapes quotes in CSV (doubled quotes)", metavar="CHARACTER"),
    )
    max_row_bytes: int = field(
        default=16 * 2**20, metadata=option("bytes of a row of text files; a longer one is bad")
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_row_bytes")
        if self.encoding is not None:
            try:
                keeps_ascii(self.encoding)
            except (LookupError, ValueError) as error:
                raise InputError(f"--encoding {self.encoding}: no encoding of text") from error
        special = {
            "--csv-delimiter": self.delimiter,
            "--csv-quote": self.quote,
            "--csv-escape": self.csv_escape,
        }
        given = {flag: mark for flag, mark in special.items() if mark is not None}
        for flag, mark in given.items():
            if len(mark) != 1 or mark in "\r\n":
                raise InputError(f"{flag} {mark!r}: give one character")
            if self.csv_delimiter is None and mark in DELIMITERS:
                raise InputError(f"{flag} {mark!r}: may separate fields; name --csv-delimiter, too")
        if len(set(given.values())) < len(given):
            raise InputError(f"{', '.join(given)}: give different characters")

    @property
    def delimiter(self) -> str | None:
        """What separates fields of CSV; None for what the header line says."""
        return "\t" if self.csv_delimiter in ("\\t", "tab") else self.csv_delimiter

    @property
    def quote(self) -> str | None:
        """What encloses a field of CSV that holds delimiters; None for nothing."""
        return None if self.csv_quote == "none" else self.csv_quote

    @property
    def identity(self) -> list[str | int | None]:
        """What decides which rows text files have."""
        return [self.encoding, self.delimiter, self.quote, self.csv_escape, self.max_row_bytes]


PLAIN_TEXT_FILES = TextFileConfig()
