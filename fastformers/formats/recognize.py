"""Say which format a file has.

    names of files -> [recognize] -> reader of their format -> slices, examples

A new format is a module with a `FileReader`, and a line here. This module knows nothing of rows.
"""

from fastformers.formats.csv_files import CsvReader
from fastformers.formats.json_lines import JsonLinesReader
from fastformers.formats.parquet import ParquetReader
from fastformers.formats.readers import FileReader

# Every format, by the end of a file's name.
FORMATS: dict[str, type[FileReader]] = {
    ".parquet": ParquetReader,
    ".jsonl": JsonLinesReader,
    ".ndjson": JsonLinesReader,
    ".json": JsonLinesReader,
    ".csv": CsvReader,
    ".tsv": CsvReader,
}
