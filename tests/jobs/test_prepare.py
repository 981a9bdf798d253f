"""What `fastformers prepare` shows of what it prepared."""

from types import SimpleNamespace

from fastformers.jobs import prepare


def test_kept_values_that_did_not_fit_are_counted_on_the_screen(monkeypatch, tmp_path, capsys):
    report = SimpleNamespace(
        rows=20,
        tokens=99,
        shards=1,
        output="out",
        wall_s=1.0,
        unfit_values={"id": 3},
        summarize_preparation=lambda: {"rows": 20},
    )
    job = SimpleNamespace(corpus=SimpleNamespace(reader=None))
    monkeypatch.setattr(prepare, "open_prepare_job", lambda *arguments, **options: job)
    monkeypatch.setattr(prepare, "find_finished", lambda job: None)
    monkeypatch.setattr(prepare, "execute", lambda *arguments: report)
    arguments = ["corpus", "--bundle", "b", "--output", str(tmp_path / "out")]
    assert prepare.main(arguments) == 0
    assert "kept columns: values that did not fit are null: 3 of 'id'" in capsys.readouterr().err
    report.unfit_values = {}
    assert prepare.main(arguments) == 0
    assert "kept columns" not in capsys.readouterr().err
