"""`replace_norms` and `restore_norms`: what they change, what they leave, and what they say."""

import pickle

import pytest

torch = pytest.importorskip("torch")

import normkernels.torch as nt  # noqa: E402
from normkernels.torch import replace_norms, restore_norms  # noqa: E402

nn = torch.nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8),
        nn.Flatten(), nn.Linear(8 * 36, 5), nn.BatchNorm1d(5), nn.Sequential(nn.LayerNorm(5), nn.RMSNorm(5)),
    )  # fmt: skip


def test_keeps_everything_but_the_class():
    model, seen = network(), []
    norm = model[1]
    norm.register_forward_hook(lambda *_: seen.append("hook"))
    norm.eval()
    before = dict(norm.named_parameters()), dict(norm.named_buffers()), model.state_dict().keys()
    x = torch.randn(4, 3, 8, 8)
    expected = model(x)
    assert replace_norms(model, report=None) is model
    assert model[1] is norm
    assert type(norm) is nt.BatchNorm2d
    assert not norm.training
    after = dict(norm.named_parameters()), dict(norm.named_buffers()), model.state_dict().keys()
    assert all(a[k] is b[k] for a, b in zip(before[:2], after[:2], strict=True) for k in a)
    assert before[2] == after[2]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert seen == ["hook"] * 2


def test_is_undone():
    model = network()
    classes = [type(m) for m in model.modules()]
    replace_norms(model, report=None)
    assert restore_norms(model) is model
    assert [type(m) for m in model.modules()] == classes
    assert all(
        set(m.__dict__) == set(n.__dict__) for m, n in zip(model.modules(), network().modules(), strict=True)
    )


def test_undoes_only_what_it_did():
    model = restore_norms(nn.Sequential(nt.LayerNorm(4)))
    assert type(model[0]) is nt.LayerNorm


def test_leaves_what_was_changed_since():
    model = replace_norms(nn.Sequential(nn.LayerNorm(4)), report=None)
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Identity())
    assert restore_norms(model)(torch.randn(2, 4)).shape == (2, 4)


def test_a_second_time_changes_nothing():
    model, said = replace_norms(network(), report=None), []
    replace_norms(model, report=said.append)
    assert said == ["found no norms"]
    assert type(restore_norms(model)[1]) is nn.BatchNorm2d


def test_a_replaced_model_can_be_pickled_and_restored():
    model = pickle.loads(pickle.dumps(replace_norms(network(), report=None)))
    assert type(model[1]) is nt.BatchNorm2d
    assert type(restore_norms(model)[1]) is nn.BatchNorm2d


def test_a_model_that_is_a_norm():
    assert type(replace_norms(nn.LayerNorm(4), report=None)) is nt.LayerNorm


class MyNorm(nn.LayerNorm):
    """No class that is known."""


def test_says_what_it_did_and_why_not(capsys):
    odd = nn.LayerNorm(4)
    odd.forward = lambda x: x
    model = nn.Sequential(
        nn.LayerNorm(4), nn.LayerNorm(4), MyNorm(4), odd, nn.LazyBatchNorm2d(), nn.Linear(4, 4)
    )
    replace_norms(model)
    assert capsys.readouterr().out.splitlines() == [
        "replaced 2 LayerNorm",
        "left 1 MyNorm: no replacement is registered for this class",
        "left 1 LayerNorm: its forward is not that of its class",
        "left 1 LazyBatchNorm2d: no replacement is registered for this class",
    ]


def test_users_register_their_own(monkeypatch):
    monkeypatch.setattr("normkernels.torch.replace._known", dict(nt.replace._known))

    class Fast(MyNorm):
        pass

    nt.register_norm(MyNorm, Fast)
    assert type(replace_norms(MyNorm(4), report=None)) is Fast
    with pytest.raises(TypeError, match="replacement must be a subclass of"):
        nt.register_norm(MyNorm, nn.LayerNorm)


def test_refuses_what_is_no_model():
    for function in (replace_norms, restore_norms):
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
            function([nn.LayerNorm(4)])
