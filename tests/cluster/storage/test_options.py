import copy
import json
import pickle
import traceback

import pytest

from fastformers.cluster.storage.options import (
    KEYS,
    NO_OPTIONS,
    StorageOptions,
    parse_storage_options,
)
from fastformers.errors import InputError

SECRETS = {
    "access_key": "AKIA-hidden-1",
    "secret_key": "hidden/2+",
    "session_token": "hidden-3",
    "external_id": "hidden-4",
    "account_key": "hidden-5==",
    "sas_token": "?sv=hidden-6&sig=x%3D",
    "client_secret": "hidden-7",
}


def test_what_is_shown_of_options_holds_no_secret():
    options = StorageOptions({**SECRETS, "region": "eu-west-1"})
    for shown in (repr(options), str(options), f"{[options]}", str(vars(type(options)))):
        assert "hidden" not in shown
    assert "region=eu-west-1" in repr(options)
    assert "secret_key=***" in repr(options)


def test_options_travel_and_are_equal_by_value():
    options = StorageOptions({**SECRETS, "anonymous": "true"})
    assert pickle.loads(pickle.dumps(options)) == options == copy.deepcopy(options)
    assert hash(options) == hash(StorageOptions({"anonymous": True, **SECRETS}))
    assert options != NO_OPTIONS
    assert options.of_scheme("s3")["secret_key"] == "hidden/2+"
    assert options.of_scheme("s3")["anonymous"] is True
    assert "account_key" not in options.of_scheme("s3")
    assert set(options.of_scheme("abfs")) == {"account_key", "sas_token", "client_secret"}


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"])
def test_secrets_are_taken_out_of_what_others_say(monkeypatch, variable):
    monkeypatch.setenv(variable, "hidden-9")
    said = "GET https://a/b?sv=hidden-6&sig=x%3D by AKIA-hidden-1 (hidden-9): no"
    assert StorageOptions(SECRETS).redact(said) == "GET https://a/b*** by *** (***): no"
    assert NO_OPTIONS.redact("nothing") == "nothing"


def test_options_come_from_the_command_line_or_a_file(tmp_path):
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"region": "eu-west-1", "secret_key": "hidden"}))
    given = parse_storage_options(f"@{path}")
    assert given == parse_storage_options('{"secret_key": "hidden", "region": "eu-west-1"}')
    assert given.of_scheme("s3") == {"region": "eu-west-1", "secret_key": "hidden"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"secret": "hidden"}', "no key 'secret'; there are endpoint_override"),
        ('{"secret_key": ["hidden"]}', "secret_key must be a text"),
        ('{"secret_key": ""}', "secret_key must be a text that is not empty"),
        ('{"secret_key": "hidden"', "give a JSON object"),
        ('["hidden"]', "give a JSON object"),
        ("hidden", "give a JSON object"),
        ('{"anonymous": "hidden"}', "anonymous must be true or false"),
        ('{"anonymous": 1.5}', "anonymous must be true or false"),
        ('{"scheme": "hidden"}', "scheme must be http or https"),
        ('{"endpoint_override": "http://me:hidden@host"}', "no user and no password"),
        ("@/no/such/file", "/no/such/file: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_without_values(text, reason):
    with pytest.raises(InputError, match=reason) as caught:
        parse_storage_options(text)
    assert "\n" not in str(caught.value)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "o").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="o: cannot be read: is not UTF-8"):
        parse_storage_options(f"@{tmp_path / 'o'}")


def test_each_secret_key_is_known_to_a_service():
    known = {key for keys in KEYS.values() for key in keys}
    assert SECRETS.keys() <= known
