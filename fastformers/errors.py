"""Every error that fastformers raises on purpose, one class per decision of the caller.

    FastformersError
    ├── InputError          fix what you passed: a path, a column, a flag, a label set
    ├── BundleError         rebuild or re-copy the bundle
    ├── StageError          a compression stage broke its own pre- or postcondition
    ├── QualityError        the compressed model is worse than you allowed
    ├── ChangedWorkError    the output belongs to other work: use another directory
    ├── ClaimedError        another run works in the output: wait for it, or stop it
    ├── NodeUnfitError      a node of the cluster cannot do the work; the others can
    ├── StorageError        the disk or bucket refused, or does not answer; mend it and rerun
    ├── ScoringError        rows could not be scored and you asked to fail on that
    └── AuditError          the predictions agree too little with the audit bundle's

Commands turn any of them into one line on stderr and exit code 2; AuditError, which finds nothing
wrong with what you passed, into exit code 1. All of them carry only their
message, so they survive pickling on the way back from an actor.
"""


class FastformersError(Exception):
    """Base of every error raised on purpose; its text is one line that says what to do."""


class InputError(FastformersError):
    """Something the user passed cannot be used; the text names it and the remedy."""


class BundleError(FastformersError):
    """A bundle is missing a file, was altered, or comes from a newer version."""


class StageError(FastformersError):
    """A compression stage found its input or its own result broken; names the stages before it."""


class QualityError(FastformersError):
    """A compressed model lost more quality than was allowed."""


class ChangedWorkError(FastformersError):
    """An output directory holds work of another corpus, bundle or setting."""


class ClaimedError(FastformersError):
    """Another run works in an output directory; the text says which, where and since when."""


class NodeUnfitError(FastformersError):
    """A node cannot do the work of a run; the text names the node and what is wrong with it."""


class StorageError(FastformersError):
    """A file could not be written or reached; nothing that was finished is lost."""


class ScoringError(FastformersError):
    """Rows could not be scored, and `--on-bad-row fail` was asked for."""


class AuditError(FastformersError):
    """Predictions agree less with those of the audit bundle than `--audit-min-agreement` bears."""
