"""Jobs over a corpus of texts with an `id`, in shards of a few rows."""

from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.settings import SCORING_ON_CORES, CorpusSettings

SETTINGS = {"keep_columns": ("id",), "shard_seconds": 0.002}


def plan(
    corpus,
    bundle,
    output,
    *,
    max_batch_tokens=None,
    engine="onnxruntime",
    scoring=SCORING_ON_CORES,
    **settings,
):
    """A job that scores."""
    return open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        CorpusSettings(**{**SETTINGS, **settings}),
        max_batch_tokens=max_batch_tokens,
        engine=engine,
        scoring=scoring,
    )


def plan_shards(corpus, bundle, output, **settings):
    """A job that prepares."""
    return open_prepare_job(
        str(corpus), bundle.path, str(output), CorpusSettings(**{**SETTINGS, **settings})
    )
