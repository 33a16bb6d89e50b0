"""Whatever a user can call has an example in its docstring, and the examples run."""

import doctest
import inspect

import pytest

import normkernels as nk
from normkernels import _buffers, jit
from normkernels.norms import NORMS


def documented():
    """Functions, classes and their own public methods, by name."""
    for module in (nk, jit):
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or (isinstance(value, type) and issubclass(value, Exception)):
                continue
            yield f"{module.__name__}.{name}", value
            if isinstance(value, type) and issubclass(value, tuple):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{module.__name__}.{name}.{method}", function


PUBLIC = dict(documented())


def test_dir_has_what_is_public():
    modules = {"jit", "reference", "sklearn", "__version__"}
    assert set(nk.__all__) <= set(dir(nk)) <= {*nk.__all__, *modules}
    assert "jit" in dir(nk)  # imported above


@pytest.mark.parametrize("name", [*NORMS, "moments", "zscore", "minmax", "whiten"])
def test_signatures_name_what_is_public(name):
    shown = str(inspect.signature(getattr(nk, name)))
    assert "ArrayLike" in shown
    assert "normkernels." not in shown
    assert "_Supports" not in shown


@pytest.fixture(autouse=True)
def buffers(monkeypatch):
    """Examples may set a limit."""
    monkeypatch.setattr(_buffers, "_set", _buffers._set)
    monkeypatch.setattr(_buffers._pool, "limit", _buffers._pool.limit)


@pytest.mark.parametrize("name", PUBLIC)
def test_examples(name):
    written = inspect.getdoc(PUBLIC[name])
    assert "\nExamples\n--------\n>>> " in written
    test = doctest.DocTestParser().get_doctest(written, {}, name, None, 0)
    lines = []
    result = doctest.DocTestRunner().run(test, out=lines.append)
    assert not result.failed, "".join(lines)


def test_the_example_of_the_module_jit():
    result = doctest.testmod(jit)
    assert result.attempted
    assert not result.failed
