"""What README, docs and docstrings show is true: commands parse, targets exist, Python compiles, names resolve."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

import contrast3d
from contrast3d import cli
from contrast3d.recipes import table

ROOT = Path(__file__).parents[1]
PAGES = {
    **{str(p.relative_to(ROOT)): p.read_text() for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")},
    **{str(p.relative_to(ROOT)): p.read_text() for p in sorted((ROOT / "docs").rglob("*.md"))},
    **{f"recipe {name}": table.documentation(name) for name in table.RECIPES},
    "import contrast3d": contrast3d.__doc__,
}
# What readers put their own in place of.
PLACEHOLDERS = {
    "VERB": "doctor", "RECIPE": "simclr-ldraw40", "PROTOCOL": "linear", "RUN": "runs/mine", "NAME": "LDraw40",
    "FOLDER": "data", "INDEX": "shapes", "QUERY": "part.stl",
}


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each fenced block, and of each indented one, whose language is ""."""
    fenced = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", text, re.M | re.S)
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:\A|\n[ \t]*\n)((?:    [^\n]*(?:\n|\Z)|[ \t]*\n(?=    ))+)", rest)
    return [(language, textwrap.dedent(code)) for language, code in fenced + [("", code) for code in indented]]


def shown_commands(text: str) -> list[list[str]]:
    """The arguments of every `contrast3d ...` line in the code blocks of a page."""
    lines = [line for _, code in code_blocks(text) for line in code.replace("\\\n", " ").splitlines()]
    program = re.compile(r"(?:\$ )?(?:\S*/)?(?:torchrun .*-m contrast3d(?:\.cli)?|contrast3d)(?: (\S.*)|$)")
    return [arguments(match[1] or "") for match in map(program.match, lines) if match]


def arguments(line: str) -> list[str]:
    """One line without what follows the command: a comment, an explanation, a pipe, optional words in brackets."""
    command = re.split(r"\s{2,}(?=[^-\s])|\s+#|\s*(?:&&|[|;>[&])", line)[0]
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(command) if word != "..."]


def shown_python(text: str) -> list[str]:
    """Fenced blocks that say they are Python, and indented ones from their first import on."""
    found = [code for language, code in code_blocks(text) if language in ("python", "py")]
    imports = (re.search(r"^(?:import|from) \w.*", code, re.M | re.S) for lang, code in code_blocks(text) if not lang)
    return found + [match[0] for match in imports if match]


def shown_targets(text: str) -> set[str]:
    """The targets of every `make ...` in code blocks and in code within a line."""
    code = [code for _, code in code_blocks(text)] + re.findall(r"`([^`\n]+)`", text)
    return set(re.findall(r"(?:^|&& |\$ )make ([a-z][\w-]*)", "\n".join(code), re.M))


class Reached(BaseException):
    """The arguments were understood, and the work would begin now."""


@pytest.fixture
def dry(monkeypatch, tmp_path):
    """Let the command line parse, and nothing run."""

    def reached(*args, **options):
        raise Reached

    for place in ("demo.demo", "pretrain.pretrain", "runs.load_run", "reporting.views_page", "doctor.diagnose",
                  "embed.embed_paths", "shape_index.open_index", "export.export_run", "prepare.prepare_pairs"):
        monkeypatch.setattr(f"contrast3d.recipes.{place}", reached)
    monkeypatch.setattr("contrast3d.index.vectors.Index.open", reached)
    monkeypatch.chdir(tmp_path)


def understood(words: list[str]) -> bool:
    try:
        return cli.main(words) in ((0, 1) if words[:1] == ["data"] else (0,))  # a data set may well be missing here
    except Reached:
        return True


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page, dry, capsys):
    for words in shown_commands(PAGES[page]):
        assert understood(words), f"contrast3d {shlex.join(words)}: {capsys.readouterr().err}"


def test_the_readme_shows_the_way(dry):
    targets = shown_targets(PAGES["README.md"])
    assert {"demo", "test"} <= targets
    verbs = {words[0] for words in shown_commands(PAGES["README.md"]) if words}
    assert {"pretrain", "evaluate"} <= verbs


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    rules = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test"} <= rules
    assert not shown_targets(PAGES[page]) - rules


def test_continuous_integration_runs_the_tests_of_the_readme():
    assert re.search(r"^exec make test\b", (ROOT / ".ci" / "run").read_text(), re.M)


class Names(ast.NodeVisitor):
    """Resolves the names of this library in shown code, and fits the arguments of calls to their signatures."""

    def __init__(self):
        self.known: dict[str, object] = {}

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == "contrast3d":
                module = importlib.import_module(alias.name)
                self.known[alias.asname or "contrast3d"] = module if alias.asname else contrast3d

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module.split(".")[0] == "contrast3d":
            module = importlib.import_module(node.module)
            for alias in node.names:
                self.known[alias.asname or alias.name] = getattr(module, alias.name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.resolved(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = self.resolved(node.func)
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        if callable(function) and not starred:
            inspect.signature(function).bind_partial(*node.args, **{k.arg: k.value for k in node.keywords})
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in (t for t in node.targets if isinstance(t, ast.Name)):
            self.known.pop(target.id, None)

    def resolved(self, node: ast.expr) -> object | None:
        """The object that an expression like c3d.nn.DGCNN names; None where it is none of this library's."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolved(node.value)
            if isinstance(owner, ModuleType | type):
                return getattr(owner, node.attr)
        return None


@pytest.mark.parametrize("page", [page for page in PAGES if shown_python(PAGES[page])])
def test_python_is_true(page):
    names = Names()
    names.known["c3d"] = contrast3d
    for code in shown_python(PAGES[page]):
        names.visit(ast.parse(code, page))


# Canaries: the checks above do find what is wrong.

SAMPLE = """
Text, and `make demo`.

    contrast3d data list          what there is
    contrast3d pretrain RECIPE [--field v]   e.g. pretrain simclr-ldraw40
    $ contrast3d evaluate linear RUN --draws 2  # a comment

- item

      not a command

```bash
git clone X && make test ARGS="-k knn"
contrast3d pretrain simclr-ldraw40 \\
    --epochs 3 | tee log
.venv/bin/contrast3d doctor
torchrun --nproc-per-node 2 -m contrast3d.cli pretrain simclr-ldraw40
torchrun --nproc-per-node 2 -m contrast3d embed RUN parts -o INDEX
```

```python
import contrast3d as c3d
c3d.nn.DGCNN(embed_dim=8)
```
"""


def test_canary_reading():
    assert sorted(shown_commands(SAMPLE)) == sorted([
        ["data", "list"], ["pretrain", "simclr-ldraw40"], ["evaluate", "linear", "runs/mine", "--draws", "2"],
        ["pretrain", "simclr-ldraw40", "--epochs", "3"], ["doctor"], ["pretrain", "simclr-ldraw40"],
        ["embed", "runs/mine", "parts", "-o", "shapes"],
    ])
    assert shown_targets(SAMPLE) == {"demo", "test"}
    assert shown_python(SAMPLE) == ["import contrast3d as c3d\nc3d.nn.DGCNN(embed_dim=8)\n"]


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("pretrain simclr-ldraw40 --epochs 3", True),
        ("pretrain simclr-ldraw40 --epoch-count 3", False),
        ("pretrain simclr-moon", False),
        ("evaluate linear runs/x --labels 5 10 0", True),
        ("evaluate lineal runs/x", False),
        ("report runs/x", True),
        ("report simclr-ldraw40 --views", True),
        ("report runs/x --view", False),
        ("data list", True),
        ("data fetch", False),
        ("demo --quiet", True),
        ("doctor", True),
        ("embed runs/x a.stl parts LDraw40 -o shapes --up y", True),
        ("embed runs/x a.stl", False),
        ("search shapes part.stl -k 3 --out strip.png", True),
        ("search shapes part.stl --kay 3", False),
        ("dedupe shapes --threshold 0.1", True),
        ("gallery shapes", True),
        ("export runs/x -o out --format onnx", True),
        ("export runs/x -o out --format onyx", False),
        ("train", False),
        ("pretrain --help", True),
    ],
)
def test_canary_commands(dry, line, right):
    if right or not line.startswith("data"):
        assert understood(line.split()) is right
    else:
        assert cli.main(line.split()) == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import contrast3d as c3d\nc3d.nn.DGCNN(embed_dim=8)", None),
        ("from contrast3d.nn.dgcnn import DGCNN\nDGCNN.report(k=3).cuda()", None),
        ("import contrast3d as c3d\nc3d.nn.DGCN()", AttributeError),
        ("import contrast3d as c3d\nc3d.nn.DGCNN(width=8)", TypeError),
        ("from contrast3d.nn.dgcnn import DGCNNN", AttributeError),
        ("import contrast3d.moon", ModuleNotFoundError),
        ("c3d.evaluate.linear(", SyntaxError),
    ],
)
def test_canary_python(code, error):
    if error is None:
        Names().visit(ast.parse(code))
        return
    with pytest.raises(error):
        Names().visit(ast.parse(code))
