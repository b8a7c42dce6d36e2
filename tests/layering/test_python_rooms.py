"""Which Python module may import what, read from the syntax tree."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rooms import ROOT

PACKAGE = sorted((ROOT / "edgellm").rglob("*.py"))
SIM = sorted((ROOT / "sim").rglob("*.py"))
# Modules of edgellm.cost and sim/strategy are pure unless they are named here, with the reason.
IMPURE = {
    "edgellm/cost/load.py",  # reads the profile files
    "edgellm/cost/tables.py",  # reads tables of measurements
    "edgellm/cost/calibrate.py",  # measures this machine
    "edgellm/cost/machine.py",  # reads what the system says of this machine
    "edgellm/cost/measure.py",  # times the engine
    "edgellm/cost/profile_file.py",  # writes a profile
    "edgellm/cost/stress.py",  # times the engine under load
}
# Modules made of a library which edgellm does without: imported by functions only, or by each other.
LAZY = {
    "edgellm._templates": {"jinja2"},
    "edgellm.server.app": {"starlette"},
    "edgellm.server.gate": {"starlette"},
    "edgellm.server.protocol": {"uvicorn"},
    "edgellm.server.running": {"uvicorn"},
}
PURE = [p for p in PACKAGE + SIM if p.parts[-2] in {"cost", "strategy"} or p == ROOT / "sim" / "metrics.py"]
PURE = [p for p in PURE if p.relative_to(ROOT).as_posix() not in IMPURE]
WORLD = {
    "time",
    "random",
    "secrets",
    "datetime",
    "socket",
    "subprocess",
    "threading",
    "multiprocessing",
    "urllib",
}
WORLD |= {
    "os",
    "io",
    "shutil",
    "tempfile",
    "pathlib",
    "logging",
    "asyncio",
    "ctypes",
    "edgellm._core",
    "edgellm._sim",
}


def module_name(path: Path) -> str:
    """The dotted name a file is installed under."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "sim":
        parts = ("edgellm", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, at import time) of every import of a file; type-checking blocks are left out."""
    here = module_name(path)
    package = here if path.name == "__init__.py" else here.rpartition(".")[0]

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            yield from ((f"{base}.{alias.name}", at_import) for alias in node.names)
        inner = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def under(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PACKAGE, ids=ids)
def test_engine_does_not_import_the_testbed(path):
    room = path.relative_to(ROOT).parts[1]
    for name, at_import in imports(path):
        if under(name, "edgellm.sim"):
            assert room in {"cli", "apps"}, f"{name}: only edgellm.cli and edgellm.apps use the testbed"
            assert not at_import, f"{name}: import it inside the function that needs it"


@pytest.mark.parametrize("path", PACKAGE + SIM, ids=ids)
def test_only_sim_engine_imports_the_simgrid_extension(path):
    if not path.is_relative_to(ROOT / "sim" / "engine"):
        assert [name for name, _ in imports(path) if under(name, "edgellm._sim")] == []


@pytest.mark.parametrize("path", SIM, ids=ids)
def test_testbed_uses_the_engine_through_public_names(path):
    for name, _ in imports(path):
        if under(name, "edgellm") and not under(name, "edgellm._sim") and not under(name, "edgellm.sim"):
            private = [part for part in name.split(".") if part.startswith("_") and not part.startswith("__")]
            assert private == [], f"{name} is private to the engine"


@pytest.mark.parametrize("path", PACKAGE, ids=ids)
def test_engine_imports_only_numpy_at_import_time(path):
    allowed = {"edgellm", "numpy"} | LAZY.get(module_name(path), set())
    for name, at_import in imports(path):
        top = name.split(".")[0]
        if at_import:
            assert top in allowed or top in sys.stdlib_module_names, f"{name} at import time"
            lazy = [m for m in LAZY if under(name, m) and module_name(path) not in LAZY]
            assert lazy == [], f"{name}: import it inside the function that needs it"


@pytest.mark.parametrize("path", PURE, ids=ids)
def test_pure_module_sees_no_clock_no_chance_no_file(path):
    for name, _ in imports(path):
        assert not any(under(name, module) for module in WORLD), f"{name} in a pure module"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"open", "print", "input", "exec", "eval"}, f"line {node.lineno}: {called}()"
            assert not called.startswith(("np.random.", "numpy.random.")), f"line {node.lineno}: {called}()"


@pytest.mark.parametrize("path", PACKAGE + SIM, ids=ids)
def test_no_star_import_and_no_bare_except(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert "*" not in [alias.name for alias in node.names], f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except swallows Ctrl-C"


BLOCKED = """
import sys

class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {"edgellm", "numpy"} or top in sys.stdlib_module_names or top.startswith("__editable__"):
            return None
        if top in {"sitecustomize", "usercustomize", "_virtualenv", "_distutils_hack", "setuptools"}:
            return None
        raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, OnlyNumpy())
import edgellm
import edgellm.cli
assert not any(name == "edgellm.sim" or name.startswith("edgellm.sim.") for name in sys.modules)
"""


def test_import_of_edgellm_needs_only_numpy(build_env, tmp_path):
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, cwd=tmp_path, env=build_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
