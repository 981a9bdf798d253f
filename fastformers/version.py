"""The version of this project, for its metadata, its kept work and `--version`.

    [version] -> everything

This module imports nothing, so that whoever asks for the version loads nothing.
"""

VERSION = "0.1.0"
