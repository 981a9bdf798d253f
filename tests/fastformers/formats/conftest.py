import pytest

from fastformers.formats.readers import ReadOptions
from fastformers.formats.text_file_config import TextFileConfig
from tests.fastformers.formats.files import open_file, read_all


@pytest.fixture
def read(tmp_path):
    """Text, or reason why there is none, of each row of a file of some bytes under a name."""

    def read(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content)
        reader = open_file(path, ReadOptions(text_files=TextFileConfig(**options)))
        return read_all(reader, path, part_bytes=7, chunk_bytes=7)

    return read
