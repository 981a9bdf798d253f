import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, pre_tokenizers, processors

from fastformers.errors import InputError
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.vocabulary import trim_embeddings, trim_tokenizer, type_pairs, without_types  # noqa: E402

NUM_WORDS = 104  # 5 special tokens, 20 words ("a" is also a letter), 39 letters, 40 endings
NUM_SMALLEST = 5 + 40 + 40
WORDS = ["the", "of", "to", "and", "cat", "dog", "sat", "mat", "good", "bad", "film", "text"]


def counts(tokenizer_json, frequencies):
    vocabulary = HfTokenizer.from_str(tokenizer_json).get_vocab()
    counts_V = np.zeros(len(vocabulary), np.int64)
    for word, frequency in frequencies.items():
        counts_V[vocabulary[word]] = frequency
    return counts_V


@given(st.dictionaries(st.sampled_from(WORDS), st.integers(0, 100)), st.integers(0, 25))
@settings(max_examples=50)
def test_the_most_frequent_words_stay(tokenizer_json, frequencies, num_kept):
    trimmed_json, old_ids = trim_tokenizer(
        tokenizer_json, counts(tokenizer_json, frequencies), max_words=NUM_SMALLEST + num_kept
    )
    vocabulary = HfTokenizer.from_str(trimmed_json).get_vocab()
    kept = [word for word in WORDS if word in vocabulary]
    seen = [word for word, frequency in frequencies.items() if frequency > 0]
    assert len(kept) == min(num_kept, len(seen))
    least = min((frequencies[word] for word in kept), default=np.inf)
    assert all(frequencies[word] <= least for word in seen if word not in kept)

    before = HfTokenizer.from_str(tokenizer_json).get_vocab()
    assert old_ids.tolist() == sorted(old_ids.tolist())
    by_id = sorted(vocabulary, key=vocabulary.get)
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert [before[word] for word in by_id] == old_ids.tolist()
    for word in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "z", "##z", "9", "##9", "?"]:
        assert word in vocabulary


def test_kept_words_are_read_as_before_and_dropped_ones_are_spelled(tokenizer_json):
    frequencies = {"the": 9, "cat": 5, "dog": 1}
    trimmed_json, _ = trim_tokenizer(
        tokenizer_json, counts(tokenizer_json, frequencies), max_words=NUM_SMALLEST + 2
    )
    before, after = HfTokenizer.from_str(tokenizer_json), HfTokenizer.from_str(trimmed_json)
    assert after.get_vocab_size() == NUM_SMALLEST + 2
    for text in ["The cat", "a z!", "☃", "[MASK] the"]:
        assert after.encode(text).tokens == before.encode(text).tokens
    assert after.encode("the dog").tokens == ["[CLS]", "the", "d", "##o", "##g", "[SEP]"]
    pair = after.encode("the cat", "the")
    assert pair.tokens == ["[CLS]", "the", "cat", "[SEP]", "the", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]


def test_texts_of_kept_words_keep_their_logits(tokenizer_json, make_teacher, make_texts):
    model = make_teacher()
    texts = [text.replace("film", "cat") for text in make_texts(32)]
    rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
    expected_NC = predict_logits(model, rows)
    trimmed_json, old_ids = trim_tokenizer(
        tokenizer_json, np.bincount(rows.ids, minlength=NUM_WORDS), max_words=NUM_WORDS
    )
    trim_embeddings(model, old_ids)
    assert model.config.vocab_size == len(old_ids) == NUM_WORDS - 1  # all but "film"
    assert model.get_input_embeddings().weight.shape == (NUM_WORDS - 1, 32)
    trimmed_rows = Tokenizer(trimmed_json, max_length=64).encode(texts)
    assert (rows.ids.max(), trimmed_rows.ids.max()) == (24, 23)  # "text" moved up
    np.testing.assert_allclose(predict_logits(model, trimmed_rows), expected_NC, atol=1e-6)


def test_the_post_processor_of_bert_is_renumbered():
    words = ["dropped", "dropped2", "[UNK]", "[CLS]", "[SEP]", "cat", "c", "##c"]
    tokenizer = HfTokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    trimmed_json, old_ids = trim_tokenizer(
        tokenizer.to_str(), np.array([0, 0, 0, 0, 0, 1, 0, 0]), max_words=6
    )
    assert old_ids.tolist() == [2, 3, 4, 5, 6, 7]
    trimmed = HfTokenizer.from_str(trimmed_json)
    assert trimmed.encode("cat").ids == [1, 3, 2]
    assert trimmed.encode("cat").tokens == ["[CLS]", "cat", "[SEP]"]


def test_the_unknown_token_stays_even_if_it_is_not_special(tokenizer_json):
    parts = json.loads(tokenizer_json)
    parts["added_tokens"] = [t for t in parts["added_tokens"] if t["content"] != "[UNK]"]
    trimmed_json, _ = trim_tokenizer(
        json.dumps(parts), counts(tokenizer_json, {"cat": 1}), max_words=NUM_WORDS
    )
    assert HfTokenizer.from_str(trimmed_json).encode("☃").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_too_few_words_are_refused_with_the_least_that_would_do(tokenizer_json):
    counts_V = counts(tokenizer_json, {"cat": 1})
    with pytest.raises(InputError, match=rf"--trim-vocabulary 9: give at least {NUM_SMALLEST}"):
        trim_tokenizer(tokenizer_json, counts_V, max_words=9)
    trim_tokenizer(tokenizer_json, counts_V, max_words=NUM_SMALLEST)


def test_another_kind_of_tokenizer_is_refused_by_name():
    tokenizer_json = HfTokenizer(models.BPE()).to_str()
    with pytest.raises(InputError, match="the tokenizer is BPE, not WordPiece; leave the option"):
        trim_tokenizer(tokenizer_json, np.zeros(0, np.int64), max_words=9)


@pytest.mark.parametrize("post_processor", [None, {"type": "Sequence", "processors": []}])
def test_unusual_special_tokens_are_refused(tokenizer_json, post_processor):
    parts = {**json.loads(tokenizer_json), "post_processor": post_processor}
    with pytest.raises(InputError, match="adds its special tokens in an unknown way"):
        trim_tokenizer(json.dumps(parts), np.zeros(NUM_WORDS, np.int64), max_words=NUM_WORDS)


BYTES = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
PROCESSORS = {
    "bert": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    "roberta": {
        "type": "RobertaProcessing",
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
        "trim_offsets": True,
        "add_prefix_space": False,
    },
    "none": None,
    "bytes": BYTES,
}
PROCESSORS["template"] = without_types(PROCESSORS["bert"])
PROCESSORS["bytes and template"] = {
    "type": "Sequence",
    "processors": [BYTES, PROCESSORS["template"]],
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_second_text_of_a_pair_gets_a_type_and_ids_stay(tokenizer_json, kind):
    parts = json.loads(tokenizer_json)
    parts["post_processor"] = PROCESSORS[kind]
    before, after = json.dumps(parts), type_pairs(json.dumps(parts))
    assert type_pairs(after) == after
    texts, pairs = ["the cat", "a"], ["on it is", "text"]
    old, new = (Tokenizer(one, max_length=12).encode(texts, pairs) for one in (before, after))
    np.testing.assert_array_equal(new.ids, old.ids)
    num_ends = int(kind not in ("none", "bytes"))
    assert new.second_lengths_N.tolist() == [3 + num_ends, 1 + num_ends]
    singles = [Tokenizer(one, max_length=12).encode(texts).ids.tolist() for one in (before, after)]
    assert singles[0] == singles[1]
