"""The command `score` without Ray, as often as a test likes."""

import contextlib
import io
import logging

import pytest
from tokenizers import Tokenizer

import fastformers.jobs.console.execute
from fastformers import Scorer
from fastformers.cluster.execution.local import connect_here
from fastformers.jobs.console.cli import main
from fastformers.jobs.console.output import ConsoleHandler


@contextlib.contextmanager
def run_here():
    """Let commands run their jobs in this process; gives what takes back further patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastformers.jobs.console.execute, "connect_ray", connect_here)
        patch.setattr(fastformers.jobs.console.execute, "_tell_metrics", lambda *values: None)
        yield patch


@pytest.fixture
def without_ray():
    """Jobs of commands run in this process."""
    with run_here():
        yield


@pytest.fixture(scope="module")
def score(bundle):
    """Runs `fastformers score` with a worker in this process: its status, stdout and lines."""
    warnings = ConsoleHandler(logging.WARNING)  # pytest's own handlers stand where the command's do

    def run(corpus, output, *flags):
        arguments = ["score", str(corpus), "--bundle", str(bundle.path), "--output", str(output)]
        with (
            contextlib.redirect_stdout(io.StringIO()) as shown,
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            status = main([*arguments, *map(str, flags)])
        return status, shown.getvalue(), said.getvalue().splitlines()

    with run_here() as patch:
        patch.setattr(fastformers.jobs.console.execute, "write_page", lambda *arguments: None)
        logging.getLogger().addHandler(warnings)
        yield run
    logging.getLogger().removeHandler(warnings)


@pytest.fixture(scope="session")
def scorer(bundle):
    """The bundle that `score` scores with."""
    return Scorer(bundle.path)


@pytest.fixture(scope="session")
def long_bundle(bundle_factory, tmp_path_factory):
    """Reads as many tokens as the fixed shapes have."""
    return bundle_factory(tmp_path_factory.mktemp("bundle") / "long", max_length=128)


@pytest.fixture(scope="session")
def save_teacher(tokenizer_json):
    """Saves a classifier of one layer and random weights; returns its directory."""
    transformers = pytest.importorskip("transformers")

    def save(path, labels=("no", "yes")):
        config = transformers.BertConfig(
            vocab_size=128,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        transformers.BertForSequenceClassification(config).save_pretrained(path)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer_json), pad_token="[PAD]"
        ).save_pretrained(path)
        return path

    return save
