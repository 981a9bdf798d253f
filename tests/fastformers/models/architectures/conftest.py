import pytest

from fastformers.inference.tokenizer import Tokenizer


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=24).encode(make_texts(24))
