"""How far an answer in words is a right one, as SQuAD and ReCoRD judge it.

    candidate, right answers -> [answers] -> exact match, F1 -> superglue

Case, punctuation, articles and spaces do not count. This module knows nothing of files or models.

Source:
    The evaluation script of Rajpurkar et al. 2016, arXiv:1606.05250, which ReCoRD's official one
    (Zhang et al. 2018, arXiv:1810.12885) takes over.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def is_exact(candidate: str, answers: Sequence[str]) -> bool:
    """Whether a candidate is one of the right answers."""
    return _words(candidate) in map(_words, answers)


def overlap(candidate: str, answers: Sequence[str]) -> float:
    """F1 of the words of a candidate against those of the right answer that it is nearest to."""
    return max(_word_f1(_words(candidate), _words(answer)) for answer in answers)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _word_f1(words: list[str], right_words: list[str]) -> float:
    num_same = (Counter(words) & Counter(right_words)).total()
    return 2 * num_same / (len(words) + len(right_words)) if num_same else 0.0
