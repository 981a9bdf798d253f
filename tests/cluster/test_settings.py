import pytest

from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.errors import InputError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0}, "--limit 0: give at least 1"),
        ({"limit": -3}, "--limit -3"),
        ({"shard_seconds": 0}, "--shard-seconds 0: give more than 0"),
        ({"shard_seconds": -1.5}, "--shard-seconds -1.5"),
    ],
)
def test_corpus_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        CorpusSettings(**settings)


@pytest.mark.parametrize("timeout_s", [0, -1])
def test_actor_settings_are_checked(timeout_s):
    with pytest.raises(InputError, match=f"--timeout-s {timeout_s}: give more than 0"):
        ActorSettings(timeout_s=timeout_s)
