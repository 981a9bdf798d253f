import pytest

from tests.needs import BROWSER_IS_NEEDED, need_browser


@pytest.fixture(autouse=True)
def no_programs(monkeypatch, tmp_path):
    """No program is found."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_browser_a_test_is_skipped_and_says_what_is_missing(monkeypatch):
    monkeypatch.delenv(BROWSER_IS_NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"chromium or .*chromium-driver"):
        need_browser()


def test_where_a_browser_is_needed_its_absence_is_a_failure(monkeypatch):
    monkeypatch.setenv(BROWSER_IS_NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="chromedriver"):
        need_browser()
