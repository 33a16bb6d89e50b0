"""`replace_norms` on models of timm and transformers: the same results, and undone."""

import pickle
from copy import deepcopy

import pytest

torch = pytest.importorskip("torch")

from normkernels.torch import replace_norms, restore_norms  # noqa: E402

nn = torch.nn


def assert_same(model, x, tolerance=1e-4):
    """Outputs, gradients, buffers and dtypes are the same after; classes are when it is undone.

    Returns the names of the classes that changed.
    """
    ours = replace_norms(deepcopy(model), report=None)
    both = list(zip(model.modules(), ours.modules(), strict=True))
    changed = [type(n).__name__ for m, n in both if type(m) is not type(n)]
    for training in (True, False):
        assert_close(*(results(each.train(training), x) for each in (ours, model)), tolerance)
    assert [type(m) for m in restore_norms(ours).modules()] == [type(m) for m in model.modules()]
    return changed


def assert_close(found, wanted, tolerance):
    """By name, beside the largest value, or 1."""
    assert found.keys() == wanted.keys()
    for name, expected in wanted.items():
        got, scale = found[name], max(1.0, float(expected.abs().max()))
        assert got.dtype == expected.dtype, name
        assert float((got.double() - expected.double()).abs().max()) <= tolerance * scale, name


def results(model, x):
    """Output, gradients of x and of parameters, and buffers after."""
    x = x.clone().requires_grad_(x.is_floating_point())
    model.zero_grad()
    torch.manual_seed(0)
    y = model(x)
    y = y if isinstance(y, torch.Tensor) else y[0]
    (y.float() * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    found = {"y": y, "x": x.grad, **dict(model.named_buffers())}
    found |= {name: p.grad for name, p in model.named_parameters()}
    return {name: t.detach() for name, t in found.items() if t is not None}


def randomized(module):
    """Weights and statistics that are no zeros and ones."""
    torch.manual_seed(1)
    for t in (*module.parameters(), *module.buffers()):
        if t.is_floating_point():
            t.data.uniform_(0.5, 1.5)
    return module


@pytest.fixture
def layers():
    return pytest.importorskip("timm.layers")


NCHW, TOKENS = (2, 8, 5, 6), (2, 5, 8)
OF_TIMM = {
    "LayerNorm": ((8,), TOKENS),
    "LayerNorm2d": ((8,), NCHW),
    "RmsNorm": ((8,), TOKENS),
    "RmsNorm2d": ((8,), NCHW),
    "GroupNorm": ((8, 2), NCHW),
    "GroupNorm1": ((8,), NCHW),
    "BatchNormAct2d": ((8,), NCHW),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", OF_TIMM)
def test_norms_of_timm(layers, name, channels_last):
    arguments, shape = OF_TIMM[name]
    x = torch.randn(shape) * 3 + 1
    if channels_last and len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    assert assert_same(randomized(getattr(layers, name)(*arguments)), x) == [name]


def test_norms_of_timm_without_weights(layers):
    for name in ("LayerNorm", "LayerNorm2d", "RmsNorm", "RmsNorm2d", "BatchNormAct2d"):
        assert_same(getattr(layers, name)(8, affine=False), torch.randn(OF_TIMM[name][1]))


@pytest.mark.parametrize(
    "act", ["relu", "silu", "sigmoid", "gelu", "gelu_tanh", "hard_swish", "leaky_relu", None]
)
@pytest.mark.parametrize("inplace", [False, True])
def test_activations_of_timm(layers, act, inplace):
    norm = randomized(layers.BatchNormAct2d(8, act_layer=act, apply_act=act is not None, inplace=inplace))
    assert_same(norm, torch.randn(NCHW))


def test_what_drops_lies_between_norm_and_activation(layers):
    norm = randomized(layers.BatchNormAct2d(8, drop_layer=nn.Dropout2d))
    assert_same(norm, torch.randn(NCHW))


def test_hooks_of_an_activation_are_called(layers):
    norm, seen = layers.BatchNormAct2d(8), []
    norm.act.register_forward_hook(lambda *_: seen.append("act"))
    replace_norms(norm, report=None)(torch.randn(NCHW))
    assert seen == ["act"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_fast_norms_of_timm_take_the_dtype_of_autocast(layers, dtype):
    """`set_fast_norm` asks for another dtype than that of x."""
    norm = layers.LayerNorm(8)
    norm._fast_norm = True
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(norm, torch.randn(TOKENS, dtype=dtype), tolerance=2e-2)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet18", {}, {"BatchNorm2d"}),
        ("mobilenetv3_small_050", {}, {"BatchNormAct2d"}),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}, {"LayerNorm"}),
        ("convnext_atto", {}, {"LayerNorm2d"}),
    ],
)
def test_models_of_timm(name, options, expected):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert set(assert_same(model, x, 1e-6)) == expected


def test_a_replaced_model_of_timm_can_be_pickled_and_restored():
    timm = pytest.importorskip("timm")
    model = replace_norms(timm.create_model("mobilenetv3_small_050"), report=None)
    again = restore_norms(pickle.loads(pickle.dumps(model)))
    assert {type(m).__module__ for m in again.modules()}.isdisjoint({"normkernels.torch.timm"})


OF_TRANSFORMERS = [
    ("deepseek_v3", "DeepseekV3RMSNorm"),
    ("llama", "LlamaRMSNorm"),
    ("mistral", "MistralRMSNorm"),
    ("mixtral", "MixtralRMSNorm"),
    ("phi3", "Phi3RMSNorm"),
    ("qwen2", "Qwen2RMSNorm"),
    ("qwen2_moe", "Qwen2MoeRMSNorm"),
    ("qwen3", "Qwen3RMSNorm"),
    ("qwen3_moe", "Qwen3MoeRMSNorm"),
    ("t5", "T5LayerNorm"),
]


def of_transformers(model, name):
    module = pytest.importorskip(f"transformers.models.{model}.modeling_{model}")
    return randomized(getattr(module, name)(8))


@pytest.mark.parametrize(("model", "name"), OF_TRANSFORMERS)
def test_norms_of_transformers(model, name):
    norm = of_transformers(model, name)
    assert assert_same(norm, torch.randn(TOKENS) * 3) == [name]
    again = pickle.loads(pickle.dumps(replace_norms(norm, report=None)))
    assert type(restore_norms(again)).__module__ == f"transformers.models.{model}.modeling_{model}"


@pytest.mark.parametrize("x", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("weight", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("model", "name"), [("llama", "LlamaRMSNorm"), ("t5", "T5LayerNorm")])
def test_dtypes_of_transformers(model, name, weight, x):
    """The dtype of the result is that of the library, whatever those of weight and x are."""
    half = {torch.float16, torch.bfloat16} & {x, weight}
    norm = of_transformers(model, name).to(weight)
    assert_same(norm, torch.randn(TOKENS).to(x), tolerance=2e-2 if half else 1e-5)


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "T5", "Bert"])
def test_models_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {
        "vocab_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
    }
    if kind == "T5":
        small = {"vocab_size": 32, "num_layers": 1, "num_heads": 2, "d_model": 16, "d_kv": 8, "d_ff": 16}
    elif kind == "Bert":
        small |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    else:
        small |= {"num_key_value_heads": 2, "head_dim": 8}
    config = getattr(transformers, f"{kind}Config")(**small)
    model = getattr(transformers, "T5EncoderModel" if kind == "T5" else f"{kind}Model")(config)
    ids = torch.arange(12).reshape(2, 6)
    assert len(assert_same(model, ids)) >= 3


def test_norms_of_transformers_that_compute_something_else_are_left():
    gemma = pytest.importorskip("transformers.models.gemma.modeling_gemma")
    said = []
    replace_norms(nn.Sequential(gemma.GemmaRMSNorm(8)), report=said.append)
    assert said == ["left 1 GemmaRMSNorm: no replacement is registered for this class"]
