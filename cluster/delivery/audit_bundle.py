"""The bundle that audits a run: pinned, and refused where it cannot stand beside the one it audits.

    --audit, --audit-bundle -> [audit_bundle] -> PinnedAudit -> workers

Both bundles read the same shards, which hold token ids, and their outputs are compared column by
column. This module knows nothing of how rows are drawn or scored.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fastformers.cluster.delivery.bundle_delivery import PinnedBundle, pin_bundle
from fastformers.cluster.settings import AuditSettings
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.manifest import TOKENIZER_FILE

FLAG = "--audit-bundle"


@dataclass(frozen=True, kw_only=True)
class PinnedAudit:
    """The audit of a run, as its workers need it.

    Attributes:
        share: Chance of a row to be scored by the second bundle, too.
        min_agreement: Least agreement of both that is borne, 0-1, or None.
        bundle: The second bundle.
        precision, digest: Those of its graph.
        extra: Core-seconds of the audit over those of the model, by the cost profiles of both.
    """

    share: float
    min_agreement: float | None
    bundle: PinnedBundle
    precision: str
    digest: str
    extra: float

    def __str__(self) -> str:
        return self.bundle.source

    def describe(self) -> dict[str, Any]:
        """What a dry run shows of it."""
        return {
            "audit": f"{100 * self.share:g}% of the rows by {self} ({self.precision}), about "
            f"{100 * self.extra:.2g}% on top of the model's core-seconds by the cost profiles"
        }


def pin_audit(
    settings: AuditSettings,
    bundle: Bundle,
    storage: StorageOptions,
    *,
    scored_by: Collection[str] = (),
) -> PinnedAudit | None:
    """Pin the bundle of an audit; None where no row is audited.

    Args:
        settings: What the user asked for.
        bundle: The bundle that scores.
        storage: How the bucket of the audit bundle is reached.
        scored_by: Digests of the graphs that score.

    Raises:
        BundleError: The audit bundle cannot be used.
        InputError: It does not fit the one that scores.
    """
    if settings.share is None or settings.bundle is None:
        return None
    pinned = pin_bundle(settings.bundle, storage)
    auditor = pinned.open()
    check_auditor(bundle, auditor, scored_by=scored_by)
    ratio = (
        auditor.cost_profile.estimate_seconds_per_token()
        / bundle.cost_profile.estimate_seconds_per_token()
    )
    return PinnedAudit(
        share=settings.share,
        min_agreement=settings.min_agreement,
        bundle=pinned,
        precision=auditor.precision,
        digest=auditor.digest,
        extra=settings.share * ratio,
    )


def check_auditor(bundle: Bundle, auditor: Bundle, *, scored_by: Collection[str] = ()) -> None:
    """Refuse an audit bundle whose outputs say nothing of the other's.

    Args:
        bundle: The bundle that scores.
        auditor: The bundle that audits.
        scored_by: Digests of the graphs that score.

    Raises:
        InputError: It has another task, other labels or outputs, reads other token ids, or is the
            very bundle that scores.
    """
    problem = (
        _other_outputs(bundle, auditor)
        or _other_tokens(bundle, auditor)
        or ("is the bundle that scores" if {*scored_by} == {auditor.digest} else None)
    )
    if problem is not None:
        remedy = "give a more exact one of the same task, such as float32 of the teacher"
        raise InputError(f"{FLAG} {auditor}: {problem}; {remedy}")


def _other_outputs(bundle: Bundle, auditor: Bundle) -> str | None:
    if auditor.task != bundle.task:
        return f"is of the task {auditor.task}, {bundle} of {bundle.task}"
    if set(auditor.labels) != set(bundle.labels):
        theirs, ours = (", ".join(one.labels) for one in (auditor, bundle))
        renames = len(auditor.labels) == len(bundle.labels)
        how = " (if these are its, `fastformers label` renames them)" if renames else ""
        return f"has the labels {theirs}, {bundle} has {ours}{how}"
    if auditor.num_outputs != bundle.num_outputs:
        return f"gives {auditor.num_outputs} numbers a row, {bundle} gives {bundle.num_outputs}"
    return None


def _other_tokens(bundle: Bundle, auditor: Bundle) -> str | None:
    """What keeps it from reading the shards, which are cut for the other bundle."""
    if auditor.text_pairs != bundle.text_pairs:
        kinds = {True: "pairs of texts", False: "one text a row"}
        return f"reads {kinds[auditor.text_pairs]}, {bundle} reads {kinds[bundle.text_pairs]}"
    if auditor.max_length != bundle.max_length:
        return (
            f"reads up to {auditor.max_length:,} tokens, {bundle} up to {bundle.max_length:,}, and "
            "a text is cut once for both"
        )
    if auditor.files[TOKENIZER_FILE] != bundle.files[TOKENIZER_FILE]:
        return (
            f"has another tokenizer than {bundle} (a trimmed vocabulary is one, too), and a text "
            "is tokenized once for both"
        )
    return None
