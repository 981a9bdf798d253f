import pytest

from fastformers.inference.engines import cuda_setup
from fastformers.jobs import bench_gpu
from fastformers.jobs.console.cli import main

ARGUMENTS = ("bench-gpu", "texts.csv", "--teacher", "none")


def refusal(capsys, *arguments):
    assert main([*ARGUMENTS, *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shapes", "bert-base,huge"), "--shapes huge: not one of student, pruned, bert-base"),
        (("--repeats", "0"), "--repeats 0: give at least 1"),
        (("--sample-rows", "0"), "--sample-rows 0: give at least 1"),
    ],
)
def test_mistakes_are_named_before_the_card_is_looked_for(capsys, monkeypatch, arguments, said):
    monkeypatch.setattr(bench_gpu, "check_cuda", lambda: pytest.fail("looked for a card"))
    assert said in refusal(capsys, *arguments)


def test_without_a_card_one_line_says_what_to_install(capsys):
    try:
        cuda_setup.check_cuda()
    except Exception:
        assert refusal(capsys).startswith("error: device cuda: ")
    else:
        pytest.skip("there is a GPU")
