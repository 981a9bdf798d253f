"""The READMEs are true: the real parsers accept their commands, their links lead somewhere.

A fenced block in `sh` holds commands and nothing else; in one marked `console`, lines that begin
with `$ ` are commands and the others are output.
"""

import ast
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import InvalidRequirement, Requirement

from fastformers.inference.bundle import DEMO_BUNDLE
from fastformers.jobs.console.cli import COMMANDS, module_of
from fastformers.jobs.results import filed, markdown
from fastformers.jobs.results.__main__ import READMES, rendered, shown_in
from tests import typed_figures

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FENCES = {"sh", "console", "python", "text", "mermaid", "yaml"}
# Parts of Ray's own command line that READMEs may name without a command of ours behind them.
RAY_COMMANDS = {("up",), ("down",), ("start",), ("status",), ("dashboard",), ("metrics",)}
FOREIGN = "fastformers"  # the name on the public index
FIGURE = re.compile(r"[-+]?\d[\d,.]*\d?(e[-+]\d+)?\s?(%|x|s|us|ms)?")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands between two lines of backticks.

    Attributes:
        file: Path of the README below the repository.
        line: Line number of the block's first line.
        language: What stands behind the opening backticks.
        lines: What the block holds.
    """

    file: str
    line: int
    language: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """One command line, and the place where a reader finds it."""

    place: str
    text: str


def blocks_of(file: str, text: str) -> list[Block]:
    """Fenced blocks of a Markdown text."""
    blocks: list[Block] = []
    language, start, lines = None, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif language is None:
            language, start, lines = line.strip().removeprefix("```"), number + 1, []
        else:
            blocks.append(Block(file, start, language, tuple(lines)))
            language = None
    assert language is None, f"{file}:{start}: a fence that is never closed"
    return blocks


def outside_fences(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not part of a fenced block, with their numbers."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def commands_of(block: Block) -> list[Command]:
    """Command lines of a block, with continuation lines joined."""
    commands: list[Command] = []
    pending, start = "", 0
    for number, line in enumerate(block.lines, block.line):
        if not pending:
            if block.language == "console":
                if not line.startswith("$ "):
                    continue
                line = line.removeprefix("$ ")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            start = number
        pending += line.rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        commands.append(Command(f"{block.file}:{start}", pending.strip()))
        pending = ""
    assert not pending, f"{block.file}:{start}: a command that ends in a backslash"
    return commands


def check_command(text: str) -> None:
    """Raise ValueError where no parser accepts a command."""
    words = shlex.split(text, comments=True)
    if words[-2:-1] == [">"]:
        words = words[:-2]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words[:2] == ["taskset", "-c"]:
        words = words[3:]
    if not words:
        raise ValueError("no command")
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "python" and rest[:1] == ["-m"]:
        program, rest = rest[1], rest[2:]
        if program.startswith("fastformers.jobs."):
            program, rest = "fastformers", [program.removeprefix("fastformers.jobs."), *rest]
    if program.startswith("tests."):
        check_paths([f"{program.replace('.', '/')}.py"])
        return
    checks = {
        "fastformers": check_fastformers,
        "make": check_make,
        "pip": check_pip,
        "pytest": check_paths,
        "ray": check_ray,
    }
    if program not in checks:
        raise ValueError(f"{program}: a program that these tests do not know")
    checks[program](rest)


def check_fastformers(words: list[str]) -> None:
    """Give the arguments to the command's own parser."""
    if not words or words[0] not in COMMANDS:
        raise ValueError(f"fastformers {' '.join(words[:1])}: no such command")
    job = importlib.import_module(module_of(words[0]))
    parse, arguments = job.parse, words[1:]
    if words[:2] == ["cost", "refresh"]:
        parse, arguments = job.parse_refresh, words[2:]
    if arguments == ["--help"]:
        return
    try:
        parse(arguments)
    except SystemExit:
        raise ValueError(f"fastformers {words[0]} refuses its arguments") from None


def check_make(words: list[str]) -> None:
    """All targets are in the Makefile; a value for a variable is no target."""
    unknown = [word for word in words if "=" not in word and word not in TARGETS]
    if unknown or not words:
        raise ValueError(f"make {' '.join(unknown)}: not in the Makefile")


def check_pip(words: list[str]) -> None:
    """What is installed is a requirement, and its extras are in pyproject.toml if it is ours."""
    requirements = [word for word in words[1:] if not word.startswith("-")]
    if words[:1] != ["install"] or not requirements:
        raise ValueError("pip without install or without a package")
    for text in requirements:
        ours = text.startswith(".")
        try:
            parsed = Requirement(re.sub(r"^\.(/\S+\.whl)?", "fastformers", text))
        except InvalidRequirement as error:
            raise ValueError(f"pip install {text}: {error}") from None
        if parsed.name == FOREIGN and not ours:
            raise ValueError(f"pip install {text}: another project's name on the public index")
        if unknown := parsed.extras - set(PROJECT["optional-dependencies"] if ours else ()):
            raise ValueError(f"pip install {text}: no extra {', '.join(unknown)}")


def check_paths(words: list[str]) -> None:
    """Paths that pytest is given are there."""
    missing = [word for word in words if word.startswith("tests") and not (ROOT / word).exists()]
    if missing:
        raise ValueError(f"pytest {missing[0]}: not there")


def check_ray(words: list[str]) -> None:
    """A submitted job is a command of ours; Ray's other commands are a short list."""
    rest = words[words.index("--") + 1 :] if "--" in words else []
    if words[:2] == ["job", "submit"] and rest:
        check_command(shlex.join(rest))
    elif words[:1] == ["submit"] and (script := re.fullmatch(r"jobs/(\w+)\.py", words[2])):
        check_fastformers([script[1], *rest])
    elif words[:1] == ["exec"] and len(words) == 3:
        check_command(words[2])
    elif tuple(words[:1]) not in RAY_COMMANDS:
        raise ValueError(f"ray {' '.join(words[:2])}: a command that these tests do not know")


def anchors_of(text: str) -> set[str]:
    """Anchors that GitHub gives the headings of a Markdown text."""
    anchors: set[str] = set()
    for _, line in outside_fences(text):
        if match := re.fullmatch(r"#+ (.*)", line):
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", match[1])
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            count = sum(anchor == slug or anchor.startswith(f"{slug}-") for anchor in anchors)
            anchors.add(f"{slug}-{count}" if slug in anchors else slug)
    return anchors


def sections_of(text: str) -> dict[str, str]:
    """Texts of the second-level sections of a Markdown text, by anchor."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    return {
        title.lower().replace(" ", "-"): section
        for title, section in zip(parts[::2], parts[1::2], strict=True)
    }


def broken_links(file: str, text: str) -> list[str]:
    """Relative links of a README that lead nowhere, with their lines."""
    broken = []
    for number, line in outside_fences(text):
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            linked = (ROOT / file).parent / path if path else ROOT / file
            if not linked.exists() or not linked.resolve().is_relative_to(ROOT):
                broken.append(f"{file}:{number}: {target}: no such file")
            elif anchor and anchor not in anchors_of(linked.read_text(encoding="utf-8")):
                broken.append(f"{file}:{number}: {target}: no such heading")
    return broken


def prose_of(text: str) -> list[str]:
    """Paragraphs of a Markdown text, with "#" for each figure that is marked."""
    lines = outside_fences(markdown.unmarked(text))
    return list(typed_figures.paragraphs(line for _, line in lines))


def read(file: str) -> str:
    """Text of a README."""
    return (ROOT / file).read_text(encoding="utf-8")


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """All flags of a command, out of its own help."""
    job = importlib.import_module(module_of(command.split()[0]))
    parse = job.parse_refresh if command == "cost refresh" else job.parse
    with pytest.raises(SystemExit):
        parse(["--help"])
    usage = capsys.readouterr().out
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]+)", usage, re.MULTILINE)) - {"--help"}


@pytest.fixture(params=READMES)
def readme(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and text of each README."""
    return request.param, read(request.param)


def test_every_command_is_accepted_by_its_own_parser(readme, capsys):
    refused = []
    blocks = [block for block in blocks_of(*readme) if block.language in ("sh", "console")]
    commands = [command for block in blocks for command in commands_of(block)]
    for command in commands:
        try:
            check_command(command.text)
        except ValueError as error:
            usage = capsys.readouterr().err.strip().splitlines()
            refused.append(f"{command.place}: {error} {usage[-1] if usage else ''}")
    assert commands, f"{readme[0]}: no command"
    assert not refused, "\n".join(refused)


def test_every_block_is_fenced_and_says_what_it_holds(readme):
    file, text = readme
    assert {block.language for block in blocks_of(file, text)} <= FENCES
    indented = [f"{file}:{n}" for n, line in outside_fences(text) if line.startswith("    ")]
    assert not indented, f"commands in a block without a fence escape these tests: {indented}"


@pytest.mark.parametrize("file", [*READMES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_and_anchor_leads_somewhere(file):
    assert not broken_links(file, read(file))


def test_no_readme_names_a_flag_that_no_command_has(readme, capsys):
    known = set.union(*(flags_of(command, capsys) for command in [*COMMANDS, "cost refresh"]))
    known |= {"--version", "--print-completion"}  # of fastformers itself
    inline = [
        (number, flag)
        for number, line in outside_fences(readme[1])
        for code in re.findall(r"`([^`]*)`", line)
        if not code.startswith(("ray ", "pip "))
        for flag in FLAG.findall(code)
    ]
    unknown = [f"{readme[0]}:{number}: {flag}" for number, flag in inline if flag not in known]
    assert not [entry for entry in unknown if not entry.endswith("--help")]


@pytest.mark.parametrize("command", [*COMMANDS, "cost refresh"])
def test_every_flag_is_explained_in_the_readme_of_the_commands(command, capsys):
    sections = sections_of(read("jobs/README.md"))
    own = sections[command.replace(" ", "-")] + sections["every-command"]
    links = re.findall(r"\(#([\w-]+)\)", own)  # one to a part of its own section adds nothing
    linked = [sections[anchor] for anchor in links if anchor in sections]
    named = {flag for text in (own, *linked) for flag in FLAG.findall(text)}
    assert flags_of(command, capsys) <= named


def test_a_newcomer_needs_two_minutes():
    seen = markdown.without_markers(read("README.md"))
    assert 130 <= len(seen.splitlines()) <= 150
    assert len(seen.split()) <= 1600


def test_tables_figures_and_pictures_are_those_that_were_measured(readme):
    file, text = readme
    stale = []

    def check(picture):
        if not picture.is_current(filed.DIRECTORY):
            stale.append(picture.name)

    assert rendered(file, text, check) == text, f"{file}: run `make results`"
    assert not stale, f"{file}: run `make results`, which draws {', '.join(stale)}"


def test_no_table_of_figures_is_typed_by_hand(readme):
    file, text = readme
    cells = [
        (line, cell.strip(" *"))
        for _, line in outside_fences(markdown.unmarked(text))
        if line.startswith("|")
        for cell in line.strip().strip("|").split("|")[1:]
    ]
    typed = {line for line, cell in cells if FIGURE.fullmatch(cell)}
    assert not typed, f"{file}: file these figures as JSON (CONTRIBUTING.md):\n" + "\n".join(typed)


def test_no_figure_of_a_sentence_is_typed_by_hand(readme):
    file, text = readme
    paragraphs = prose_of(text)
    known = typed_figures.known_in(file)
    typed = [found for one in paragraphs for found in typed_figures.typed_in(one, known)]
    assert not typed, (
        f"{file}: mark these with where they are from (CONTRIBUTING.md), or list them in "
        "tests/typed_figures.toml if nobody measured them:\n" + "\n".join(typed)
    )


def test_every_figure_that_is_typed_stands_in_its_readme(readme):
    file, text = readme
    paragraphs = prose_of(text)
    for snippet in typed_figures.known_in(file):
        assert typed_figures.typed_in(snippet, ()), f"{file}: lists what has no figure: {snippet}"
        assert any(snippet in one for one in paragraphs), f"{file}: does not say: {snippet}"


def test_every_filed_measurement_is_shown_and_can_be_measured_anew():
    shown = {one.name for file in READMES for one in shown_in(read(file))}
    measurements = filed.load_all("*", filed.DIRECTORY)
    assert {one.name for one in measurements} == shown
    for one in measurements:
        for command in one.commands:
            if not command.startswith(filed.NO_COMMAND):
                check_command(command)


def test_python_of_the_readme_runs_on_the_demo_bundle(tmp_path, monkeypatch, capsys):
    blocks = list(blocks_of("README.md", read("README.md")))
    (block,) = [block for block in blocks if block.language == "python"]
    (tmp_path / "bundle").symlink_to(DEMO_BUNDLE)
    monkeypatch.chdir(tmp_path)
    exec(compile(ast.parse("\n".join(block.lines)), "README.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("fastformers ablate --shapes-only bert-base", "ablate refuses"),
        ("fastformers score corpus --bundle b --output o --precission int8", "score refuses"),
        ("fastformers cost refresh --cloud moon --region r --output p.csv", "cost refuses"),
        ("fastformers train", "no such command"),
        ("A=1 taskset -c 0 python -m fastformers.jobs.prepare corpus", "prepare refuses"),
        ("python -m tests.cluster.none --all", "tests/cluster/none.py: not there"),
        ("ray job submit --address http://head:8265 -- fastformers report", "report refuses"),
        ("ray job list", "do not know"),
        ("ray submit c.yaml jobs/score.py -- corpus", "score refuses"),
        ("ray exec c.yaml 'fastformers report'", "report refuses"),
        ("make dinner", "not in the Makefile"),
        ("pip install '.[compres]'", "no extra compres"),
        ("pip install './fastformers_batch-0.1.0-py3-none-any.whl[compres]'", "no extra compres"),
        (f"pip install {FOREIGN}[report]", "another project's name"),
        ("pip install -e '.[compress'", "pip install"),
        ("pytest -m slow tests/test_nothing.py", "not there"),
        ("curl http://example.org", "do not know"),
    ],
)
def test_a_wrong_command_is_refused(command, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_command(command)


def test_a_wrong_command_is_named_with_its_file_and_line():
    text = "# A\n\n```sh\nmake demo\n# a comment\nfastformers score \\\n    corpus\n```\n"
    (block,) = blocks_of("A.md", text)
    assert commands_of(block) == [
        Command("A.md:4", "make demo"),
        Command("A.md:6", "fastformers score     corpus"),
    ]


def test_output_in_a_console_block_is_no_command():
    text = "```console\n$ make demo\nfastformers is the output here\n```\n"
    (block,) = blocks_of("A.md", text)
    assert commands_of(block) == [Command("A.md:2", "make demo")]


def test_broken_links_are_named_with_their_lines():
    text = "# A `b` (c)\n\n[x](#a-b-c) [y](#d) [z](LICENSE) [w](gone.md) `[v](gone.md)`\n"
    # The anchors of the text itself are read from the file, so the file's own name stands for it.
    assert anchors_of(text) == {"a-b-c"}
    assert broken_links("CONTRIBUTING.md", text.replace("#a-b-c", "#contributing")) == [
        "CONTRIBUTING.md:3: #d: no such heading",
        "CONTRIBUTING.md:3: gone.md: no such file",
    ]
