from dataclasses import replace

import numpy as np

from fastformers.export.token_choices import measure_choice_gaps
from tests.fastformers.export.test_graph import attend, linear, norm


def linear_of(values, name, parameters):
    return linear(values, parameters)


class Rows:
    """Rows of one length, in the shape of `TokenizedRows`."""

    def __init__(self, ids_BT):
        self.ids_BT = ids_BT

    def batch_ids(self, rows_B):
        return self.ids_BT[rows_B]


def test_the_gap_is_between_the_last_token_kept_and_the_first_one_dropped(encoder_factory):
    encoder = encoder_factory()
    first, last = encoder.layers
    encoder = replace(encoder, layers=(replace(first, keep_share=0.5), last))
    ids_BT = np.random.default_rng(0).integers(0, 128, (5, 21))
    gaps = measure_choice_gaps(encoder, Rows(ids_BT), [1, 3], text_pairs=False)
    for gap, row in zip(gaps, (1, 3), strict=True):
        hidden_TD = encoder.token_embeddings_VE[ids_BT[row]].astype(np.float64)
        hidden_TD += encoder.position_embeddings_PE[:21] + encoder.token_types_KE[0]
        hidden_TD = norm(hidden_TD, encoder.embedding_norm)
        _, received_T, _ = attend(hidden_TD, first, "layer0", ["qkv"] * 3, linear_of)
        others = np.sort(received_T[1:])[::-1]
        # Of 21 tokens 11 stay: the first, and ten others.
        np.testing.assert_allclose(gap, 1 - others[10] / others[9], atol=1e-5)
    assert gaps[0] != gaps[1]


def test_equal_tokens_are_no_choice_at_all(encoder_factory):
    encoder = replace(encoder_factory(), position_embeddings_PE=None)
    first, last = encoder.layers
    encoder = replace(encoder, layers=(replace(first, keep_share=0.5), last))
    rows = Rows(np.full((1, 12), 5))
    assert measure_choice_gaps(encoder, rows, [0], text_pairs=False).tolist() == [0]
    assert measure_choice_gaps(encoder, Rows(np.full((1, 1), 5)), [0], text_pairs=False) == [np.inf]


def test_tokens_without_any_attention_are_no_choice_either(encoder_factory):
    encoder = replace(encoder_factory(), kept_by="first")
    first, last = encoder.layers
    sharp = replace(first.query, weight=1e4 * first.query.weight)  # one token gets all of a head's
    encoder = replace(encoder, layers=(replace(first, query=sharp, keep_share=0.9), last))
    ids_BT = np.random.default_rng(0).integers(0, 128, (1, 20))
    assert measure_choice_gaps(encoder, Rows(ids_BT), [0], text_pairs=False).tolist() == [0]
