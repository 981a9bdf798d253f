"""No stranger's package, and no code out of files that others made.

On the public index `fastformers` is another project, and this one is `fastformers-batch`: no text
may name the other as what to install. Bundles, corpora and shards come from elsewhere: nothing here
may run what is in them.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fastformers.errors import BundleError
from fastformers.inference.engine import OnnxEngine
from tests.needs import need_openvino
from tests.sources import ROOT, list_files

PACKAGES = ("fastformers", "cluster", "jobs")
TEXTS = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".sh", ".json", ".html", ""}
# A requirement of this name for pip or another installer; a file of that name ends in .whl.
INSTALL = re.compile(
    r"""(?ix)\b(?:pip3?|pipx|uv|poetry|conda)\b [^\n]*? \b(?:install|add|download|run)\b [^\n|;&]*?
    (?<![\w./\\~\$-]) fastformers (?![\w./*-])"""
)
# The same name wherever it is that of a distribution: in requirements, files and metadata.
NAMED = re.compile(
    r"""(?x) (?<![\w./-]) fastformers (?: \[\w+(?:,\w+)*\] | \s?[=~<>]=\s?\d | \s@\s | -\d+\.\d )
    | (?:version|distributions?|requires|metadata)\( (?:name=)? ["']fastformers["']
    | ^name\s=\s"fastformers" | pypi\.org/p(?:roject)?/fastformers(?!-)"""
)
ALLOWED = {"tests/test_safety.py", "tests/fastformers/test_installation.py"}


def tracked_texts():
    paths = map(Path, list_files())
    return [path for path in paths if path.suffix in TEXTS and (ROOT / path).is_file()]


def sends_to_an_index(text):
    """Line numbers where the public `fastformers` is named, or somebody told to install it."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = enumerate(joined.split("\n"), 1)
    return [number for number, line in lines if INSTALL.search(line) or NAMED.search(line)]


def test_no_text_names_the_package_of_another_project():
    texts = tracked_texts()
    assert len(texts) > 300
    found = [
        f"{path}:{number}"
        for path in texts
        if str(path) not in ALLOWED
        for number in sends_to_an_index((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("pip install fastformers", True),
        ("pip install -U fastformers", True),
        ("pip install 'fastformers[report]'", True),
        ('RUN pip install --no-cache-dir "fastformers[cluster]==0.1.0"', True),
        ("- ~/venv/bin/pip install -q fastformers ray[default]==2.60.0", True),
        ("uv pip install ray fastformers", True),
        ("uv add fastformers", True),
        ("pip install \\\n    fastformers", True),
        ("pip install '.[report]' in the checkout", False),
        ("pip install './fastformers_batch-0.1.0-py3-none-any.whl[report]'", False),
        (
            'pip install -q "$HOME/fastformers-cluster/fastformers_batch-0.1.0-py3-none-any.whl"',
            False,
        ),
        ("pip install ray; fastformers score corpus", False),
        ("pip install ray && fastformers score corpus", False),
        ("pip install fastformers-batch", False),
        (
            "pip install 'fastformers-batch[report] @ git+https://example.org/fastformers.git'",
            False,
        ),
        ("see fastformers[report]", True),
        ("fastformers==0.1.0", True),
        ("COPY fastformers-0.1.0-py3-none-any.whl /tmp/", True),
        ("fastformers @ file:///tmp/a.whl", True),
        ('importlib.metadata.version("fastformers")', True),
        ('name = "fastformers"', True),
        ("https://pypi.org/project/fastformers/", True),
        ("https://pypi.org/project/fastformers-batch/", False),
        ("fastformers_batch-0.1.0-py3-none-any.whl", False),
    ],
)
def test_such_a_text_is_recognized(line, is_wrong):
    assert bool(sends_to_an_index(line)) == is_wrong


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def dotted(node):
    """`a.b.c` of a name or attribute; an empty string for another expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def keyword(call, name):
    return next((word.value for word in call.keywords if word.arg == name), None)


def is_true(node):
    return node is not None and not (isinstance(node, ast.Constant) and node.value is False)


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def copies_itself(call):
    """Whether what is unpickled was pickled in the same expression."""
    inner = call.args[0] if call.args else None
    return isinstance(inner, ast.Call) and dotted(inner.func) == "pickle.dumps"


def runs_foreign_code(source):
    """Calls and imports of a module that can run code out of a file, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            roots = {
                name.partition(".")[0] for name in (*names, getattr(node, "module", None) or "")
            }
            if isinstance(node, ast.Import):
                roots.discard("pickle")  # its calls are looked at below
            if bad := roots & UNPICKLERS:
                found.append(f"{node.lineno}: import {', '.join(bad)}")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.rpartition(".")[2] or getattr(node.func, "attr", "")
        if name in ("pickle.load", "pickle.loads", "pickle.Unpickler") and not copies_itself(node):
            found.append(f"{node.lineno}: {name}")
        if name in ("eval", "exec", "compile", "__import__"):
            found.append(f"{node.lineno}: {name}")
        if is_true(keyword(node, "allow_pickle")):
            found.append(f"{node.lineno}: allow_pickle")
        if is_true(keyword(node, "trust_remote_code")):
            found.append(f"{node.lineno}: trust_remote_code")
        if name == "torch.load" and not (
            isinstance(only := keyword(node, "weights_only"), ast.Constant) and only.value is True
        ):
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
            found.append(f"{node.lineno}: {name}")
        if last in ("register_custom_ops_library", "load_library", "read_pickle", "CDLL"):
            found.append(f"{node.lineno}: {last}")
        if is_true(keyword(node, "shell")):
            found.append(f"{node.lineno}: shell=True")
    return found


# What is loaded there is the C library of the machine itself, or CUDA, by no name out of a file.
OWN_LIBRARIES = {
    "fastformers/inference/engine.py",
    "fastformers/inference/engines/cuda_setup.py",
}


def test_nothing_runs_code_out_of_a_bundle_a_corpus_or_a_checkpoint():
    found = {
        str(path.relative_to(ROOT)): calls
        for path in modules()
        if (calls := runs_foreign_code(path.read_text(encoding="utf-8")))
    }
    assert len(modules()) > 100
    assert {path: calls for path, calls in found.items() if path not in OWN_LIBRARIES} == {}
    assert all("CDLL" in call for path in OWN_LIBRARIES & set(found) for call in found[path])


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(data)",
        "from pickle import loads",
        "import joblib",
        "from cloudpickle import loads",
        "numpy.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=flag)",
        "yaml.load(text, Loader=yaml.Loader)",
        "options.register_custom_ops_library(path)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_such_a_call_is_recognized(source):
    assert len(runs_foreign_code(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "numpy.load(path, allow_pickle=False)",
        "import pickle",
        "pickle.loads(pickle.dumps(error))",
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "re.compile(text)",
        "self.compile(model)",
        "subprocess.run([program], shell=False)",
    ],
)
def test_a_harmless_call_is_not(source):
    assert runs_foreign_code(source) == []


def write_graph_of(location, path):
    """A graph whose weights are said to be in another file, as a stranger's bundle may say."""
    weights = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weights])
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)


@pytest.mark.parametrize("outside", ["../secret", "absolute"])
def test_a_graph_reads_no_file_outside_its_bundle(tmp_path, outside):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    model = tmp_path / "bundle" / "model.onnx"
    model.parent.mkdir()
    write_graph_of(str(secret) if outside == "absolute" else outside, model)
    with pytest.raises(
        BundleError, match=r"cannot load it: .*(escapes model dir|Absolute path not)"
    ):
        OnnxEngine(model)


def test_a_graph_brings_no_operators_of_its_own(tmp_path):
    model = tmp_path / "model.onnx"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    node = helper.make_node("Run", ["x"], ["y"], domain="org.example", command="id")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("org.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), model)
    with pytest.raises(BundleError, match=r"org\.example"):
        OnnxEngine(model)


def test_openvino_and_nncf_report_to_nobody():
    code = (
        "import sys\n"
        "from fastformers.inference.engines.openvino import load_openvino\n"
        "load_openvino()\n"
        "import nncf, nncf.telemetry, openvino.tools.ovc.convert\n"
        "named = [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "assert named == ['openvino_telemetry'] and sys.modules['openvino_telemetry'] is None\n"
    )
    need_openvino()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
