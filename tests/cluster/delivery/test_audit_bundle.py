"""Which bundles can audit which: refused in one line, before any work."""

import pickle
from dataclasses import replace

import pytest

from fastformers.cluster.delivery.audit_bundle import check_auditor, pin_audit
from fastformers.cluster.settings import NO_AUDIT, AuditSettings
from fastformers.cluster.storage.options import NO_OPTIONS
from fastformers.errors import BundleError, InputError
from fastformers.inference.tasks import TASKS


@pytest.fixture(scope="module")
def auditor(bundle_factory, tmp_path_factory):
    return bundle_factory(tmp_path_factory.mktemp("auditor") / "bundle", num_layers=1)


def test_a_bundle_of_the_same_tokens_and_labels_is_pinned(bundle, auditor):
    settings = AuditSettings(share=0.01, bundle=str(auditor.path), min_agreement_percent=97.5)
    audit = pickle.loads(pickle.dumps(pin_audit(settings, bundle, NO_OPTIONS)))
    assert (audit.share, audit.min_agreement, audit.precision) == (0.01, 0.975, "float32")
    assert audit.digest == auditor.digest != bundle.digest
    assert audit.bundle.digest == auditor.manifest_digest
    assert audit.bundle.path != auditor.path
    assert audit.extra == pytest.approx(0.01)  # both bundles have the same cost profile
    assert str(audit) == str(auditor.path)
    assert pin_audit(NO_AUDIT, bundle, NO_OPTIONS) is None


@pytest.mark.parametrize("inputs", [("input_ids",), ("input_ids", "token_type_ids")])
def test_one_of_the_two_may_read_no_token_types(pair_bundle, inputs):
    """A DistilBERT that learned from a BERT: shards say where a second text begins."""
    own = replace(pair_bundle, input_names=("input_ids", "token_type_ids")[: 3 - len(inputs)])
    check_auditor(own, replace(pair_bundle, input_names=inputs))


def test_labels_may_be_in_another_order(bundle, auditor):
    check_auditor(bundle, replace(auditor, labels=("yes", "no")))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": TASKS["regression"]}, "is of the task regression, {} of text-classification"),
        ({"labels": ("no", "yes", "maybe")}, "has the labels no, yes, maybe, {} has no, yes; give"),
        (
            {"labels": ("LABEL_0", "LABEL_1")},
            "has the labels LABEL_0, LABEL_1, {} has no, yes (if these are its, `fastformers "
            "label` renames them)",
        ),
        ({"num_outputs": 3}, "gives 3 numbers a row, {} gives 2"),
        ({"text_pairs": True}, "reads pairs of texts, {} reads one text a row"),
        ({"max_length": 32}, "reads up to 32 tokens, {} up to 64, and a text is cut once for both"),
        (
            {"files": {"tokenizer.json": "0" * 64}},
            "has another tokenizer than {} (a trimmed vocabulary is one, too), and a text is "
            "tokenized once for both",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(bundle, auditor, changes, problem):
    with pytest.raises(InputError) as caught:
        check_auditor(bundle, replace(auditor, **changes))
    line = str(caught.value)
    assert line.startswith(f"--audit-bundle {auditor}: {problem.format(bundle)}")
    assert line.endswith("; give a more exact one of the same task, such as float32 of the teacher")


def test_a_bundle_does_not_audit_itself(bundle, auditor):
    with pytest.raises(InputError, match="is the bundle that scores"):
        check_auditor(bundle, bundle, scored_by=[bundle.digest])
    check_auditor(bundle, bundle, scored_by=[bundle.digest, auditor.digest])  # cores and GPUs


def test_a_directory_without_a_bundle_is_named(bundle, tmp_path):
    settings = AuditSettings(share=0.01, bundle=str(tmp_path))
    with pytest.raises(BundleError, match=f"{tmp_path}: not a bundle"):
        pin_audit(settings, bundle, NO_OPTIONS)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    message = f"--audit {share:g}: give a share above 0, at most 1"
    with pytest.raises(InputError, match=message):
        AuditSettings(share=share, bundle="b")


@pytest.mark.parametrize("percent", [0, 101, float("nan")])
def test_an_agreement_that_is_none_is_refused(percent):
    message = f"--audit-min-agreement {percent:g}: give percent, above 0 and at most 100"
    with pytest.raises(InputError, match=message):
        AuditSettings(share=0.1, bundle="b", min_agreement_percent=percent)
