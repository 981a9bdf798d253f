import pytest

from fastformers.inference.engines import cuda_setup
from fastformers.jobs import bench_gpu
from fastformers.jobs.console.cli import main

ARGUMENTS = ("texts.csv", "--teacher", "none")


def refusal(capsys, *arguments):
    assert main(["bench-gpu", *arguments]) == 2
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
    assert said in refusal(capsys, *ARGUMENTS, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give CORPUS and --teacher, or --bundle and --profile-out"),
        (("texts.csv",), "give CORPUS and --teacher, or --bundle and --profile-out"),
        ((*ARGUMENTS, "--profile-out", "p"), "--profile-out: name the --bundle whose rows"),
        (("--bundle", "b"), "--bundle: measures this bundle alone; give it with --profile-out"),
        ((*ARGUMENTS, "--bundle", "b", "--profile-out", "p"), "without CORPUS, --teacher and"),
    ],
)
def test_the_paper_or_a_bundle_is_measured(capsys, monkeypatch, arguments, said):
    monkeypatch.setattr(bench_gpu, "check_cuda", lambda: pytest.fail("looked for a card"))
    assert said in refusal(capsys, *arguments)


@pytest.fixture
def on_a_card(monkeypatch):
    """A machine on which the driver sees an L4, and whose card does nothing."""
    monkeypatch.setattr(bench_gpu, "check_cuda", lambda: None)
    monkeypatch.setattr(bench_gpu, "read_card_name", lambda: "NVIDIA L4")
    monkeypatch.setattr(bench_gpu, "open_engine", lambda *_, **__: None)


def test_a_type_with_another_gpu_is_no_name_of_this_machine(
    capsys, on_a_card, two_graphs, tmp_path
):
    profile = ("--bundle", str(two_graphs.path), "--profile-out", str(tmp_path / "p.json"))
    said = refusal(capsys, *profile, "--instance-type", "g5.xlarge")
    assert "--instance-type g5.xlarge has A10G-24GB, but this machine has L4-24GB" in said


def test_a_bundle_without_a_graph_for_gpus_is_not_measured(capsys, on_a_card, bundle, tmp_path):
    said = refusal(capsys, "--bundle", str(bundle.path), "--profile-out", str(tmp_path / "p.json"))
    assert "has float32 alone; make it again with compress --precision float16" in said


def test_without_a_card_one_line_says_what_to_install(capsys):
    try:
        cuda_setup.check_cuda()
    except Exception:
        assert refusal(capsys, *ARGUMENTS).startswith("error: device cuda: ")
    else:
        pytest.skip("there is a GPU")
