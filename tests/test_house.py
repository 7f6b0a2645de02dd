"""The house rules that no linter knows: sizes, docstrings, and what must never be in the tree."""

import ast
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("crypto", "protocol", "node", "client", "cli")
MODULE_LINES_MAX = 600
MODULE_LINES_MEDIAN_MAX = 200
FUNCTION_LINES_MAX = 80
FUNCTION_LINES_P95_MAX = 50
DOCUMENTED_SHARE_MIN = 0.9
MAY_BE_EMPTY = {"__init__.py", "py.typed", "empty.evidence"}

COMMANDS = (
    "agency|approvals|backup|chat|decline|device|edit|evidence|get|join|log|node|react|read|recover"
    "|recovery|redact|search|send|sign|status|sync|verify|whoami"
)
# A line of its own begins with spaces.
BARE_COMMAND = re.compile(rf"(?<!')(?<!^ )(?<!^  )\bivor (?:{COMMANDS})\b(?! [0-9])")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Brackets keep these patterns from finding themselves.
FOREIGN = re.compile(
    r"(?<![\w.~])/(?:wor[k]|roo[t]|op[t]|home/\w+)/"
    r"|py[p]i\.org|pythonhoste[d]\.org|npm[j]s\.(?:org|com)|deb[i]an\.org",
)
LEFT_OPEN = re.compile(r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b|type:\s*ignor[e]|NotImplementedErro[r]")


def written_here() -> Iterator[tuple[str, str]]:
    """Path and text of each file of the project: what .gitignore names is skipped."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    pending = [ROOT]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.name in ignored or path.name == ".git":
                continue
            if path.is_dir():
                pending.append(path)
            else:
                yield str(path.relative_to(ROOT)), path.read_text(errors="replace")


def modules() -> dict[str, str]:
    """Path and text of each module of the five packages."""
    return {
        str(path.relative_to(ROOT)): path.read_text()
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def function_sizes(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function, from its first decorator to its end."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            yield node.name, (node.end_lineno or node.lineno) - first + 1


def public_names(source: str) -> Iterator[tuple[str, bool]]:
    """Each public class, function and method, and whether it has a docstring.

    A method that overrides one of a base class is described there.
    """
    pending: list[tuple[str, Sequence[ast.stmt]]] = [("", ast.parse(source).body)]
    while pending:
        prefix, body = pending.pop()
        for node in body:
            if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                continue
            if node.name.startswith("_") or overrides(node):
                continue
            yield prefix + node.name, ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                pending.append((f"{prefix}{node.name}.", node.body))


def overrides(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether the definition is marked with @override or is the setter of a property."""
    marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
    return not marks.isdisjoint({"override", "setter", "overload"})


def found(pattern: re.Pattern[str], files: Iterable[tuple[str, str]]) -> list[str]:
    """Each line that the pattern finds, as path:line: text."""
    return [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in files
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def bare_commands(path: str, source: str) -> Iterator[str]:
    """Each text for people in which one of our commands is named without quotes around it."""
    tree = ast.parse(source)
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in notes:
            continue
        if isinstance(node.value, str) and BARE_COMMAND.search(node.value):
            yield f"{path}:{node.lineno}: {node.value[:80]}"


class TestSizes:
    def test_modules(self) -> None:
        """Those of the tests and benchmarks, too."""
        files = written_here()
        lines = {path: len(text.splitlines()) for path, text in files if path.endswith(".py")}
        assert lines.keys() > modules().keys()
        assert not {path: size for path, size in lines.items() if size > MODULE_LINES_MAX}

    def test_median_module(self) -> None:
        sizes = [len(text.splitlines()) for text in modules().values()]
        assert statistics.median(sizes) <= MODULE_LINES_MEDIAN_MAX

    def test_functions(self) -> None:
        sizes = {
            f"{path}: {name}": size
            for path, text in modules().items()
            for name, size in function_sizes(text)
        }
        assert not {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX}

    def test_most_functions_are_short(self) -> None:
        sizes = [size for text in modules().values() for _, size in function_sizes(text)]
        assert statistics.quantiles(sizes, n=20)[-1] <= FUNCTION_LINES_P95_MAX

    def test_a_long_function_is_seen(self) -> None:
        source = "@mark\nasync def long():\n" + "    pass\n" * FUNCTION_LINES_MAX
        assert list(function_sizes(source)) == [("long", FUNCTION_LINES_MAX + 2)]


class TestDocstrings:
    @pytest.mark.parametrize("package", PACKAGES)
    def test_public_names(self, package: str) -> None:
        names = {
            f"{path}: {name}": documented
            for path, text in modules().items()
            if path.startswith(f"{package}/")
            for name, documented in public_names(text)
        }
        missing = [name for name, documented in names.items() if not documented]
        assert len(missing) <= len(names) * (1 - DOCUMENTED_SHARE_MIN), "\n".join(missing)

    def test_what_counts(self) -> None:
        source = (
            "class A:\n  'said'\n  def bare(self): ...\n  def _own(self): ...\n"
            "  @typing.override\n  def run(self): ...\nasync def f(): 'said'\n"
        )
        assert sorted(public_names(source)) == [("A", True), ("A.bare", False), ("f", True)]


class TestWords:
    def test_no_machine_and_no_registry(self) -> None:
        assert not found(FOREIGN, written_here())

    @pytest.mark.parametrize(
        "text",
        ["see /wor" + "k/main/x", "'/roo" + "t/.cache/'", "https://py" + "pi.org/simple"],
    )
    def test_a_machine_is_seen(self, text: str) -> None:
        assert found(FOREIGN, [("a", text)]) == [f"a:1: {text}"]

    @pytest.mark.parametrize("text", ["network/peers", "node/work/", "~/opt/x"])
    def test_other_paths_are_not(self, text: str) -> None:
        assert not found(FOREIGN, [("a", text)])

    def test_nothing_left_open(self) -> None:
        files = [(path, text) for path, text in written_here() if path.endswith(".py")]
        assert not found(LEFT_OPEN, files)

    @pytest.mark.parametrize("text", ["# TOD" + "O: later", "x = y  # type:" + " ignore[misc]"])
    def test_an_open_end_is_seen(self, text: str) -> None:
        assert found(LEFT_OPEN, [("a.py", "\n" + text)]) == [f"a.py:2: {text}"]

    def test_a_command_in_a_sentence_stands_in_quotes(self) -> None:
        """In single ones; bare is only one that has a line of its own."""
        assert not [one for path, text in modules().items() for one in bare_commands(path, text)]

    @pytest.mark.parametrize(
        ("said", "wrong"),
        [
            ("say(\"see 'ivor node users'\")", 0),
            ("say('  ivor node users')", 0),
            ("def f():\n    '`ivor node` says'", 0),
            ("say('run: ivor node users')", 1),
            ("say('`ivor node users` lists them')", 1),
            ("say(f'{x}: ivor node users')", 1),
        ],
    )
    def test_a_bare_command_is_seen(self, said: str, wrong: int) -> None:
        assert len(list(bare_commands("a", said))) == wrong

    def test_nothing_is_left_over(self) -> None:
        """An empty file came from a slip, such as ":memory:" opened as a path."""
        empty = [path for path, text in written_here() if not text]
        assert {Path(path).name for path in empty} <= MAY_BE_EMPTY, empty

    def test_the_tree_is_read(self) -> None:
        paths = {path for path, _ in written_here()}
        assert {"pyproject.toml", "tests/test_house.py", "requirements.lock"} <= paths
        assert not [path for path in paths if "__pycache__" in path or path.startswith(".git/")]
