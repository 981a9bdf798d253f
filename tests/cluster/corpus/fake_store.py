"""A bucket in memory that counts what it is asked, in place of the filesystem of a corpus."""

import io
import threading

import pyarrow as pa
import pyarrow.fs
from pyarrow.fs import FileInfo, FileSystemHandler, FileType, PyFileSystem

import fastformers.cluster.corpus.slices


class FakeStore(FileSystemHandler):
    """Files by path, all of them below "bucket".

    Attributes:
        files: Content of each file.
        sizes: Sizes that the listing shows of files that are never opened.
        requests: What was asked: "info", "list", "open" or "read", and the path.
        num_bytes: Bytes that were read.
        outage: Error that a read raises once `num_reads_before_outage` have succeeded, or None.
        gate: Barrier that a read waits at, so that a test sees which reads run at once, or None.
    """

    def __init__(self, files=(), sizes=()):
        self.files, self.sizes = dict(files), dict(sizes)
        self.requests, self.gate, self.num_bytes = [], None, 0
        self.outage, self.num_reads_before_outage = None, 0

    def count(self, kind, path=None):
        return sum(r == kind and path in (None, p) for r, p in list(self.requests))

    def install(self, monkeypatch):
        """Let every corpus be opened in this store."""
        filesystem = PyFileSystem(self)
        monkeypatch.setattr(
            fastformers.cluster.corpus.slices, "resolve", lambda uri, options: (filesystem, uri)
        )
        return self

    def get_type_name(self):
        return "fake"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector):
        self.requests.append(("list", selector.base_dir))
        return [
            FileInfo(path, FileType.File, size=size, mtime=1.0)
            for path, size in {**self._lengths(), **self.sizes}.items()
        ]

    def open_input_file(self, path):
        self.requests.append(("open", path))
        if path not in self.files:
            raise FileNotFoundError(path)
        return pa.PythonFile(_CountedReads(self, path), mode="r")

    def open_input_stream(self, path):
        raise AssertionError("a stream of unknown size is read in small parts")

    def create_dir(self, path, recursive):
        raise NotImplementedError

    delete_dir = delete_dir_contents = delete_file = move = copy_file = create_dir
    delete_root_dir_contents = open_output_stream = open_append_stream = create_dir

    def _info(self, path):
        self.requests.append(("info", path))
        if path in self.files:
            return FileInfo(path, FileType.File, size=len(self.files[path]), mtime=1.0)
        return FileInfo(path, FileType.Directory)

    def _lengths(self):
        return {path: len(content) for path, content in self.files.items()}


class _CountedReads(io.BytesIO):
    def __init__(self, store, path):
        super().__init__(store.files[path])
        self.store, self.path = store, path

    def read(self, size=-1):
        self.store.requests.append(("read", self.path))
        if self.store.gate is not None:
            self.store.gate.wait(timeout=30)
        if self.store.outage is not None:
            if self.store.num_reads_before_outage == 0:
                raise self.store.outage
            self.store.num_reads_before_outage -= 1
        content = super().read(size)
        self.store.num_bytes += len(content)
        return content


def make_gate(num_reads):
    """A barrier that opens when so many reads wait at it; a read alone fails after 30 s."""
    return threading.Barrier(num_reads)
