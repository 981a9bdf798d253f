"""Be somebody whom a directory's rights hold back."""

import os
from contextlib import contextmanager


@contextmanager
def no_rights():
    """Become another user for a moment, because root may do anything."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
