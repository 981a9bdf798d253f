"""A corpus, and samples of it."""

import numpy as np
import pytest

from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.cost.sampling import sample_corpus

WORDS = ("the", "cat", "sat", "on", "mat", "a", "dog", "ran")


def make_rows(num_rows, seed=0):
    """Texts whose length drifts over the corpus, with repeats near each other and bad rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        length = 1 + rng.geometric(1 / (3 + 12 * number / num_rows))
        text = " ".join(rng.choice(WORDS, min(60, length)))
        if rows and rng.random() < 0.1:
            text = rows[-1]["text"]
        rows.append({"text": "" if rng.random() < 0.02 else text, "n": number})
    return rows


def open_text(path):
    return open_corpus(str(path), text_columns=("text",))


@pytest.fixture(scope="session")
def take():
    """Samples a file with a bundle's tokenizer: `take(path, bundle, **options)`."""
    return take_sample


def take_sample(path, bundle, **options):
    settings = {"num_shards": 100, "size": None, "seed": 0} | options
    return sample_corpus(
        open_text(path), bundle.load_tokenizer(), max_length=bundle.max_length, **settings
    )


@pytest.fixture(scope="session")
def rows():
    """3000 of these rows."""
    return make_rows(3000)
