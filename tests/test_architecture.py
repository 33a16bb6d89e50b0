"""The shape of the package: imports go one way, files stay short, importing it stays light."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import normkernels

PACKAGE = Path(normkernels.__file__).parent
MAX_LINES = 400

# From top to bottom. A module imports from lines below its own and from its own name's inside,
# never from a line above and never from a neighbour on its line. A name covers what is inside it
# unless that has a line of its own; `normkernels` is only the package's __init__.
LAYERS = [
    "normkernels.cli  normkernels.sklearn",
    "normkernels.compile_command",
    "normkernels.bench",
    "normkernels.torch",
    "normkernels.torch.replace",
    "normkernels.torch.sync  normkernels.torch.timm",
    "normkernels.torch.modules  normkernels.torch.transformers",
    "normkernels.torch.functional",
    "normkernels.torch._norms",
    "normkernels.torch._recalled",
    "normkernels.torch._operators",
    "normkernels.torch._tensors",
    "normkernels",
    "normkernels._ahead",
    "normkernels.norms",
    "normkernels._dask_estimators",
    "normkernels.functional  normkernels.jit",
    "normkernels._dask  normkernels._features",
    "normkernels._local_response  normkernels._scaling  normkernels._row_passes  normkernels._group_passes",
    "normkernels._channel_passes  normkernels._moments",
    "normkernels._passes",
    "normkernels._calls",
    "normkernels._validate",
    "normkernels._arrays",
    "normkernels._plan  normkernels._whitening",
    "normkernels._dispatch",
    "normkernels.cpu  normkernels.reference  normkernels.cuda",
    "normkernels.cpu.launch",
    "normkernels.cpu.prepared",
    "normkernels.cpu.launch_rows  normkernels.cpu.launch_channels  normkernels.cpu.launch_local_response",
    "normkernels.cpu.launch_positions",
    "normkernels.cpu.layouts",
    "normkernels.cpu.run",
    "normkernels.cpu.rows  normkernels.cpu.groups  normkernels.cpu.local_response  normkernels.cpu.positions",
    "normkernels.cpu.channels  normkernels.cpu.columns",
    "normkernels.cpu.column_channels",
    "normkernels.cpu.channel_constants",
    "normkernels.cpu.narrow_rows",
    "normkernels.cpu.row_primitives  normkernels.cpu.column_primitives",
    "normkernels.cpu.channel_primitives",
    "normkernels.cpu.extremes",
    "normkernels.cpu.fusion",
    "normkernels.cpu.activations  normkernels.cpu.primitives",
    "normkernels.cpu.roots",
    "normkernels.cpu.jit",
    "normkernels.cpu.cache  normkernels.cpu.parallel",
    "normkernels.cpu.loops  normkernels.cpu.pointers",
    "normkernels.cpu.tracing",
    "normkernels.cpu.vectors",
    "normkernels.cpu.tuning",
    "normkernels.cuda.launch",
    "normkernels.cuda.launch_rows  normkernels.cuda.launch_groups  normkernels.cuda.launch_channels",
    "normkernels.cuda.launch_long_rows",
    "normkernels.cuda.launch_runs  normkernels.cuda.launch_columns  normkernels.cuda.launch_local_response",
    "normkernels.cuda.launch_strips",
    "normkernels.cuda.layouts",
    "normkernels.cuda.walks  normkernels.cuda.strip_rules",
    "normkernels.cuda.run  normkernels.cuda.config",
    "normkernels.cuda.rows  normkernels.cuda.groups  normkernels.cuda.channels  normkernels.cuda.runs",
    "normkernels.cuda.long_rows  normkernels.cuda.columns  normkernels.cuda.strips",
    "normkernels.cuda.local_response  normkernels.cuda.copies",
    "normkernels.cuda.column_primitives",
    "normkernels.cuda.column_shares  normkernels.cuda.emulated_columns",
    "normkernels.cuda.primitives",
    "normkernels.cuda.activations  normkernels.cuda.teams",
    "normkernels.cuda.shares",
    "normkernels.cuda.vectors  normkernels.cuda.emulated",
    "normkernels.cuda.form  normkernels.cuda.jit",
    "normkernels.cuda.foreign  normkernels.cuda.memory",
    "normkernels.cuda.simulated",
    "normkernels.cuda.arrays",
    "normkernels.cuda.devices  normkernels.cuda.dlpack",
    "normkernels._devices  normkernels._extras",
    "normkernels._layout",
    "normkernels._buffers",
    "normkernels.results",
    "normkernels._formulas",
]
DEPTH = {name: depth for depth, line in enumerate(LAYERS) for name in line.split()}

# What `import normkernels` may depend on; the command line and the benchmarks may depend on more.
CORE = {"filelock", "llvmlite", "normkernels", "numba", "numpy", *sys.stdlib_module_names}
OPTIONAL = {("normkernels._layout", "ml_dtypes")}  # named where it is missing
NEEDS_EXTRA = (
    "normkernels.cli",
    "normkernels.compile_command",
    "normkernels._dask",
    "normkernels._dask_estimators",
    "normkernels.bench",
    "normkernels.sklearn",
    "normkernels.torch",
    "normkernels.cuda",
)


def module_files(package=PACKAGE):
    """Every module of the package by its dotted name."""
    files = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


FILES = module_files()


def inside(module, name):
    return module == name or module.startswith(name + ".")


def entry_of(module):
    """The name in LAYERS that covers a module: the longest that fits; None where nothing does."""
    fitting = [n for n in DEPTH if module == n or (n != "normkernels" and inside(module, n))]
    return max(fitting, key=len, default=None)


def imports_of(module, files):
    """What a module imports; modules of the package also where a string names them, as in a lazy import."""
    tree = ast.parse(files[module].read_text(encoding="utf-8"))
    package = module.split(".") if files[module].name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import name` reaches a module if the name is one, and the package if not.
            below = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in files else source for name in below]
        elif isinstance(node, ast.Constant) and node.value in files and "." in node.value:
            names = [node.value]
        else:
            continue
        yield from ((name, node.lineno) for name in names)


def goes_down(importer, imported):
    """Whether one entry of LAYERS may import another."""
    around = [name for name in DEPTH if inside(imported, name) and name not in (imported, "normkernels")]
    reached = [imported, *(name for name in around if not inside(importer, name))]
    return importer == imported or all(DEPTH[name] > DEPTH[importer] for name in reached)


def upward_imports(files):
    """One line for each import that does not go down."""
    return [
        f"{files[module].name}:{line}: {module} imports {target}"
        for module in files
        for target, line in dict.fromkeys(imports_of(module, files))
        if entry_of(module) and entry_of(target) and not goes_down(entry_of(module), entry_of(target))
    ]


def test_every_module_has_a_layer():
    unplaced = [module for module in FILES if entry_of(module) is None]
    assert not unplaced, f"put into LAYERS, where it belongs: {unplaced}"


def test_nothing_imports_upward():
    wrong = upward_imports(FILES)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("normkernels.cpu.primitives", "from ..functional import layer_norm"),
        ("normkernels.cpu.primitives", "from .. import _plan"),
        ("normkernels.cpu.channels", "from .rows import forward"),
        ("normkernels.cpu.jit", "def f():\n    import normkernels.cpu.launch"),
        ("normkernels._plan", "if TYPE_CHECKING:\n    from normkernels import norms"),
        ("normkernels._plan", "from . import __version__"),
        ("normkernels._validate", 'BACKEND = import_module("normkernels.bench")'),
        ("normkernels.reference", "from ..cpu import launch"),
    ],
)
def test_an_upward_import_is_seen(module, statement, tmp_path):
    """The rule can fail: every module of LAYERS, empty but for one upward import."""
    files = {}
    for name in DEPTH:
        is_package = any(other.startswith(name + ".") for other in DEPTH) or name == "normkernels.reference"
        files[name] = tmp_path / name / ("__init__.py" if is_package else f"{name.rpartition('.')[2]}.py")
        files[name].parent.mkdir()
        files[name].write_text(statement if name == module else "", encoding="utf-8")
    assert [line.split(": ", 1)[1].split()[0] for line in upward_imports(files)] == [module]


def test_core_depends_on_numba_and_numpy_alone():
    foreign = [
        f"{module}:{line} imports {target}"
        for module in FILES
        if not any(inside(module, name) for name in NEEDS_EXTRA)
        for target, line in imports_of(module, FILES)
        if target.split(".")[0] not in CORE and (module, target) not in OPTIONAL
    ]
    assert not foreign, "\n".join(foreign)


def test_no_file_is_long():
    lines = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in FILES.items()}
    assert not {module: count for module, count in lines.items() if count > MAX_LINES}


def test_import_is_light():
    """`import normkernels` brings in numba and numpy, and nothing that only some of its users need."""
    code = (
        "import sys, numba; before = set(sys.modules); import normkernels; "
        "sys.stdout.write(' '.join(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = set(run.stdout.split())
    heavy = {
        "click",
        "cpuinfo",
        "cupy",
        "dask",
        "jinja2",
        "matplotlib",
        "psutil",
        "rich",
        "sklearn",
        "torch",
        "yaml",
    }
    assert "normkernels" in added
    assert not {name for name in added if name.split(".")[0] in heavy or "cuda" in name}


PUBLIC = {name: getattr(normkernels, name) for name in normkernels.__all__}


@pytest.mark.parametrize("name", [n for n in PUBLIC if callable(PUBLIC[n]) or inspect.ismodule(PUBLIC[n])])
def test_public_names_have_docstrings(name):
    written = inspect.getdoc(PUBLIC[name]) or ""
    # A NamedTuple writes its own signature where there is no docstring.
    assert written
    assert not written.startswith(f"{name}(")


HOST_ONLY = ("zscore", "minmax", "whiten")


@pytest.mark.parametrize("name", [*normkernels.NORMS, "moments", *HOST_ONLY])
def test_a_function_says_where_its_arrays_may_lie(name):
    written = inspect.getdoc(PUBLIC[name])
    if "As for `batch_norm`" not in written:
        assert "In host memory" in written
        assert ("on a CUDA device; there the results are `DeviceArray`" in written) == (name not in HOST_ONLY)
