"""A file of settings says what flags say; what it cannot say is refused in one line."""

import json

import pytest

from fastformers.jobs import ablate, score
from fastformers.jobs.console.cli import main

GIVEN = ["corpus", "--bundle", "b", "--output", "o"]


@pytest.fixture
def file(tmp_path):
    """Writes the file; returns the flags that name it."""

    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return ["--config", str(path)]

    return write


def parsed(options):
    """The options without those that only a file gives, and without how they were given."""
    apart = ("config", "given", "settings", "words")
    return {name: value for name, value in vars(options).items() if name not in apart}


def test_a_file_says_what_the_flags_would(file):
    text = """
# where
corpus: s3://bucket/corpus
bundle: b
output: 'o'
# what
keep-columns: [id, "price, net"]
limit: 100
binary_text: true
skip-unreadable-files: false
csv-delimiter: ;
encoding: null
text-pair-column:
max-bad-rows: 5%
storage-options: {region: us-west-2, anonymous: true}
"""
    flags = ["s3://bucket/corpus", "--bundle", "b", "--output", "o", "--keep-columns", "id"]
    flags += ["--keep-columns", "price, net", "--limit", "100", "--binary-text"]
    flags += ["--csv-delimiter", ";", "--max-bad-rows", "5%"]
    flags += ["--storage-options", '{"region": "us-west-2", "anonymous": true}']
    options, expected = score.parse(file(text)), score.parse(flags)
    assert parsed(options) == parsed(expected)
    assert options.given.keys() - {"config"} == expected.given.keys()


def test_text_stays_as_it_is_written(file):
    text = "text-column: no\noutput: 010\nkeep-columns: 1e3\nshard-seconds: 1e1\n"
    options = score.parse(["c", "--bundle", "b", *file(text)])
    assert (options.text_column, options.output, options.keep_columns) == ("no", "010", ("1e3",))
    assert options.shard_seconds == 10.0


def test_flags_of_the_command_line_come_first(file):
    config = file("corpus: other\nbundle: other\noutput: o\nlimit: 3\nkeep-columns: [a, b]\n")
    options = score.parse(["mine", "--bundle=b", *config, "--keep-columns", "c"])
    assert (options.corpus, options.bundle, options.output) == ("mine", "b", "o")
    assert (options.limit, options.keep_columns) == (3, ("c",))


def test_a_flag_of_the_command_line_comes_before_one_that_excludes_it(file):
    from fastformers.jobs import cost

    options = cost.parse(["c", "--bundle", "b", "--reserved", *file("spot: true\n")])
    assert options.reserved and not options.spot
    assert cost.parse(["c", "--bundle", "b", *file("spot: true\n")]).spot


def test_lists_are_repeated_flags_or_names_with_commas(file):
    options = ablate.parse(file("bundle: [a, b]\noutput: o\n"))
    assert [str(path) for path in options.bundles] == ["a", "b"]
    from fastformers.jobs import bench

    assert bench.parse(["c", *file("parts: [job, peers]\n")]).parts == ("job", "peers")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep-column: id", "keep-column: no such flag; did you mean keep-columns?"),
        ("colour: red", "colour: no such flag"),
        ("config: other.yaml", "config: no such flag"),
        ("help: true", "help: no such flag"),
        ("limit: many", "argument --limit: invalid int value: 'many'"),
        ("engine: tvm", "argument --engine: invalid choice: 'tvm'"),
        ("limit: true", "limit: takes a value, not true"),
        ("limit: [1, 2]", "limit: takes one value, not a list"),
        ("limit: {a: 1}", "limit: takes one value, not a mapping"),
        ("keep-columns: [[a]]", "keep-columns: a list holds texts and numbers, nothing else"),
        ("binary-text: 'yes'", "binary-text: is true or false, not yes"),
        ("limit: 1\nlimit: 2", "line 2: limit stands there twice"),
        ("limit 1", "write a flag's name and value on each line"),
        ("a: [1", "is not YAML: expected ',' or ']'"),
        ("? [a]\n: 1", "line 1: is no name of a flag"),
        ("engine: !!python/object/apply:os.system [ls]", "engine: takes one value, not a list"),
    ],
)
def test_what_a_file_cannot_say_is_refused_with_its_name(file, capsys, text, message):
    with pytest.raises(SystemExit) as ended:
        score.parse([*GIVEN, *file(text)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert message in error
    assert "job.yaml" in error or error.endswith(f"error: {message}") or "argument" in error


def test_a_file_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        score.parse([*GIVEN, "--config", "none.yaml"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("error: --config none.yaml: cannot be read: No such file or directory")


def test_the_settings_of_a_run_are_recorded_whether_a_file_or_a_flag_gave_them(
    score, tmp_path, file, write_rows
):
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"text": "a cat"}])
    config = file("max-batch-tokens: 256\nstorage-options: {secret_key: SECRET, access_key: A}\n")
    uri = "s3://key:SECRET@bucket/x"
    status, _, _ = score(corpus, tmp_path / "none", *config)
    assert status == 2  # the secrets are for no bucket
    flags = ("--limit", "1", *file("max-batch-tokens: 256"))
    status, _, said = score(corpus, tmp_path / "out", *flags)
    assert status == 0, said
    text = (tmp_path / "out" / "__run__" / "run.json").read_text()
    settings = json.loads(text)["settings"]
    assert (settings["max_batch_tokens"], settings["limit"]) == (256, 1)
    assert settings["corpus"] == str(corpus)
    assert "SECRET" not in text and uri
    assert main(["status", str(tmp_path / "out")]) == 0
