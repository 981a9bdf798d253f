"""Give the labels of a bundle names, in place of 0 or LABEL_0; predictions then have these names.

fastformers label BUNDLE --names negative,positive

The names are in the order of the labels, which `fastformers inspect BUNDLE` shows. Only bundle.json
changes, in one step. A run that began under other names is not continued: give it another output.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastformers.errors import InputError
from fastformers.inference.bundle import open_bundle
from fastformers.inference.description.rename_labels import name_labels
from fastformers.inference.manifest import CARD_FILE
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.options import names_given

_FLAG = "--names"
_SHOWN = 20


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers label`."""
    parser = CommandParser(
        prog="fastformers label",
        description=__doc__,
    )
    parser.add_argument("bundle", help="directory of the bundle, on this machine")
    parser.add_argument(
        _FLAG,
        action="append",
        required=True,
        metavar="A,B",
        help="a name for each label, in the order of the labels; repeat it for names with commas",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers label`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if "://" in options.bundle:
            raise InputError(
                f"{options.bundle}: a bundle is named where it lies on this machine; copy it here, "
                "name its labels, and copy it back"
            )
        bundle = open_bundle(Path(options.bundle))
        names = names_given(options.names)
        renamed, has_card = name_labels(bundle, names, flag=_FLAG)
        for label, name in list(zip(bundle.labels, renamed.labels, strict=True))[:_SHOWN]:
            console.print(f"{label} -> {name}")
        if (more := len(names) - _SHOWN) > 0:
            console.print(f"and {more} more")
        if not has_card:
            console.print(f"{CARD_FILE} was edited and stays; name the labels there by hand")
        return {
            "bundle": options.bundle,
            "labels": list(renamed.labels),
            "earlier_labels": list(bundle.labels),
            "digest": renamed.digest,
            "manifest_digest": renamed.manifest_digest,
        }

    return run(job, options)


if __name__ == "__main__":
    sys.exit(main())
