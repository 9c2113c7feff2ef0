"""The structure of the house: import direction, light imports, dependencies, no pickles, docstrings."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest
import torch

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "contrast3d"
FILES = sorted(SRC.rglob("*.py"))
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))

# docs/design.md, "Layout and direction": a part imports from lines above its own, never from beside or below.
LEVELS = (
    ("errors", "tally"),
    ("types", "inert_pickle"),
    ("ops",),
    ("nn", "losses", "metrics"),
    ("methods", "engine", "data", "teachers", "checkpoints"),
    ("downstream", "report", "index"),
    ("recipes",),
    ("flags",),
    ("verbs", "data_verbs"),
    ("cli", "__init__", "__main__"),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}

HEAVY = ("sklearn", "matplotlib", "trimesh", "h5py", "rich", "tyro", "tensorboard", "transformers")
FORBIDDEN = (
    "torchvision", "plyfile", "pykdtree", "torch-cluster", "torch-geometric", "pyg-lib", "spconv",
    "minkowskiengine", "timm", "lightly", "open-clip-torch", "litdata",
)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> list[str]:
    """Dotted names of all imports anywhere in `tree`; relative ones are resolved against `package`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, node.module) if node.module else base)
            found += [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module", "__import__",
        ):
            found += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return found


def wrong_imports(relative: Path, tree: ast.AST) -> list[str]:
    """The imports of one file of the package that do not point down."""
    package = ("contrast3d", *relative.parent.parts)
    own = relative.parts[0].removesuffix(".py")
    wrong = []
    for name in imported_modules(tree, package):
        root, _, rest = name.partition(".")
        if root != "contrast3d":
            continue
        part = rest.partition(".")[0]
        level = LEVEL.get(part, LEVEL["__init__"])  # `from contrast3d import load` reaches for the top
        if part != own and level >= LEVEL[own] and LEVEL[own] < LEVEL["__init__"]:
            wrong.append(f"{relative} imports {name}")
    return wrong


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_part_has_a_level():
    parts = {path.relative_to(SRC).parts[0].removesuffix(".py") for path in FILES}
    assert not parts - set(LEVEL), "give these a line in LEVELS and in docs/design.md"


def test_imports_point_down():
    wrong = [line for path in FILES for line in wrong_imports(path.relative_to(SRC), parse(path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "code", "count"),
    [
        ("ops/knn.py", "from contrast3d.nn import DGCNN", 1),
        ("ops/knn.py", "def f():\n    from contrast3d.recipes.demo import Demo", 1),  # lazy imports count
        ("losses/a.py", "import contrast3d.metrics.rankme", 1),  # siblings
        ("losses/a.py", "from contrast3d import metrics, ops", 1),
        ("methods/a.py", "from ..engine import loop", 1),
        ("methods/a.py", "import importlib; importlib.import_module('contrast3d.data')", 1),
        ("nn/a.py", "from contrast3d import load", 1),  # the package itself is the top
        ("types.py", "from contrast3d.ops.knn import knn", 1),
        ("errors.py", "from contrast3d.types import Clouds", 1),
        ("types.py", "from contrast3d.errors import DataError", 0),
        ("ops/kernels/a.py", "from ...types import Clouds\nfrom .threads import run", 0),
        ("report/a.py", "from contrast3d.report import page\nfrom contrast3d.metrics import accuracy", 0),
        ("cli.py", "from contrast3d import recipes, load", 0),
    ],
)
def test_canary_import_checker(file: str, code: str, count: int):
    assert len(wrong_imports(Path(file), ast.parse(code))) == count


def test_no_file_outgrows_its_room():
    lines = {path.relative_to(SRC): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: n for path, n in lines.items() if n > 350}


def test_no_drawer_for_odds_and_ends():
    stems = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not stems & {"utils", "util", "misc", "common", "helpers", "helper"}


def test_public_names_have_docstrings():
    bare = []
    for path in FILES:
        tree = parse(path)
        public = [
            node for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_"
        ]
        bare += [f"{path.relative_to(SRC)}: {n.name}" for n in public if not ast.get_docstring(n)]
        if tree.body and not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(SRC)}: the module itself")
    assert not bare, "\n".join(bare)


def unpickles(tree: ast.AST) -> list[int]:
    """Line numbers where a file could unpickle what it is given."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            hit = any(alias.name.split(".")[0] in modules for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            hit = node.level == 0 and node.module.split(".")[0] in modules
        elif isinstance(node, ast.Call):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            is_torch_load = ast.unparse(node.func) == "torch.load"
            hit = keywords.get("allow_pickle", False) is not False
            hit |= is_torch_load and keywords.get("weights_only") is not True
        else:
            hit = False
        if hit:
            lines.append(node.lineno)
    return lines


def test_nothing_is_unpickled():
    found = [f"{path.relative_to(SRC)}:{line}" for path in FILES for line in unpickles(parse(path))]
    assert not found


@pytest.mark.parametrize(
    ("code", "safe"),
    [
        ("import pickle", False),
        ("from joblib import load", False),
        ("np.load(f, allow_pickle=True)", False),
        ("np.load(f, allow_pickle=flag)", False),
        ("torch.load(f)", False),
        ("torch.load(f, weights_only=False)", False),
        ("torch.load(f, weights_only=True)", True),
        ("np.load(f, allow_pickle=False)", True),
    ],
)
def test_canary_pickle_checker(code: str, safe: bool):
    assert bool(unpickles(ast.parse(code))) is not safe


def requirements() -> list[str]:
    """Normalised names of everything pyproject.toml and constraints.txt mention."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    lines += (ROOT / "constraints.txt").read_text().splitlines()
    names = [re.match(r"[\w.-]+", line) for line in lines]
    return [re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name]


def test_no_forbidden_dependency():
    names = requirements()
    assert "torch" in names
    assert not set(names) & set(FORBIDDEN)


def test_every_direct_dependency_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {re.sub(r"[-_.]+", "-", p.split("==")[0]).lower() for p in pins if "==" in p}
    assert set(requirements()) <= pinned
    assert "torch==2.13.0" in pins
    assert not [p for p in pins if "+" in p and p[0] != "#"], "local versions exist on one index only"


def test_no_torchvision():
    installed = {(d.metadata["Name"] or "").lower() for d in metadata.distributions()}
    assert "torch" in installed
    assert "torchvision" not in installed


def test_importing_every_module_is_free_of_heavy_packages():
    loaded = python(
        "import contrast3d, importlib, pkgutil, sys\n"
        "for m in pkgutil.walk_packages(contrast3d.__path__, 'contrast3d.'):\n"
        "    m.name.endswith(('__main__', '_triton')) or importlib.import_module(m.name)\n"
        "print(*sys.modules)"
    ).split()
    assert "contrast3d.ops.kernels.threads" in loaded
    assert not set(loaded) & {"torchvision", *HEAVY}


@pytest.mark.parametrize("module", ["contrast3d", "contrast3d.cli"])
def test_import_is_instant(module: str):
    loaded = python(f"import {module}, sys; print(*sys.modules)").split()
    assert module in loaded
    assert not set(loaded) & {"torch", "numba", "numpy", *HEAVY}


def test_canary_shape_checks_are_on():
    from contrast3d.ops.knn import knn

    with pytest.raises(jaxtyping.TypeCheckError):
        knn(torch.zeros(4, 3), torch.zeros(5, 2), "five")


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths_or_registry_hosts():
    places = re.compile(
        r"(?<![\w.])/(work|root|home|Users|tmp|workspace)/\w"
        r"|pypi\.org|pythonhosted|download\.pytorch|debian\.org|registry\.npm|index-url|find-links"
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in places.finditer(text)]
    assert not found, "\n".join(found)


def test_docs_and_navigation_agree():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))


def test_design_names_every_part():
    design = (ROOT / "docs" / "design.md").read_text()
    layout = design[design.index("    src/contrast3d/") : design.index("    tests/ ")]
    named = re.findall(r"^      (\w+)(?:/|\.py) ", layout, re.M)
    parts = {path.relative_to(SRC).parts[0].removesuffix(".py") for path in FILES}
    assert set(named) == parts - {"__init__", "__main__"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_imports_shown_in_docs_exist(page: str):
    shown = re.findall(r"^ *from (contrast3d[\w.]*) import (.+)$", (ROOT / page).read_text(), re.M)
    for module, names in shown:
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{page}: {module}.{name}"
