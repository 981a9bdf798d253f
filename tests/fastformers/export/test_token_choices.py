from dataclasses import replace

import numpy as np

from fastformers.export.token_choices import measure_choice_gaps
from tests.fastformers.export.test_graph import norm


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
        others = np.sort((hidden_TD @ first.significance_D)[1:])[::-1]
        # Of 21 tokens 11 stay: the first, and ten others.
        np.testing.assert_allclose(gap, (others[9] - others[10]) / others.std(), atol=1e-5)
    assert gaps[0] != gaps[1]


def test_equal_tokens_are_no_choice_at_all(encoder_factory):
    encoder = replace(encoder_factory(), position_embeddings_PE=None)
    first, last = encoder.layers
    encoder = replace(encoder, layers=(replace(first, keep_share=0.5), last))
    rows = Rows(np.full((1, 12), 5))
    assert measure_choice_gaps(encoder, rows, [0], text_pairs=False).tolist() == [0]
    assert measure_choice_gaps(encoder, Rows(np.full((1, 1), 5)), [0], text_pairs=False) == [np.inf]
