"""CUDA kernels compiled without a GPU: no spills, accesses of 16 bytes, room for as many blocks as is meant.

This shows what compilers make of the kernels; that they compute the right thing, and how fast, it does not.
"""

import pickle
import re
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from normkernels.bench import cuda_resources

# Nothing to compile with, or the simulator in its place: the reason says which.
if (reason := cuda_resources.missing()) is not None:
    pytest.skip(reason, allow_module_level=True)

from normkernels.bench import markdown
from normkernels.cuda import offline, shares
from normkernels.cuda.families import families
from normkernels.cuda.form import Form
from normkernels.cuda.jit import KERNELS
from normkernels.cuda.offline import DEVICES, Access, Resources, argument_accesses, occupancy, resources
from normkernels.cuda.variants import KIND, Variant, narrow, problems, variants

pytestmark = pytest.mark.cuda

SM_80, SM_90, SM_100 = DEVICES
PLAIN = Resources(32, 0, 0, 0, Counter(), Counter(), 0, Counter())


def chosen() -> list[tuple[Variant, tuple[int, int]]]:
    """For sm_90 every kernel and mode in its largest forms; a few of the other dtypes and architectures.

    `normkernels resources` compiles all of them.
    """
    largest: dict[object, Variant] = {}
    for v in variants(("float32", "bfloat16")):
        several = v.form.blocks > 1 and not v.mode
        key = v.family.kernel.name, v.mode, v.dtype, v.form.edges, v.form.lanes > 1, several
        largest[key] = max(largest.get(key, v), v, key=lambda v: v.form.capacity)
    of_vectors = {v.family.kernel.name for v in largest.values() if v.form.lanes > 1}
    wide = [v for v in largest.values() if v.form.lanes > 1 or v.family.kernel.name not in of_vectors]
    plain = [v for v in wide if v.mode == "" and v.dtype == "float32"]
    aligned = [v for v in wide if not v.form.edges]
    fused = [v for v in aligned if v.mode and (v.dtype == "float32" or v.mode == "float32 parameters")]
    vectors = [v for v in aligned if v.mode == "" and v.form.lanes > 1]
    halves = [v for v in vectors if v.dtype == "bfloat16"]
    few = [v for v in vectors if v.dtype == "float32"]
    others = [(v, (SM_80, SM_100)[k % 2]) for k, v in enumerate(few)]
    return [(v, SM_90) for v in plain + fused + halves] + others


def look(variant: Variant, compute_capability: tuple[int, int]) -> Resources:
    return resources(variant.family.kernel, variant.signature(), compute_capability)


@pytest.mark.parametrize(
    ("variant", "cc"), [pytest.param(*c, id=f"{c[0].id}-sm_{c[1][0]}{c[1][1]}") for c in chosen()]
)
def test_a_variant_keeps_to_its_registers_and_its_accesses(variant, cc):
    found = look(variant, cc)
    assert not problems(variant, found, DEVICES[cc])
    for stores, machine in ((False, found.loads), (True, found.stores)):
        assert set(machine) == {a.bytes for a in found.accesses if a.stores == stores}, "no access is split"


def test_every_kernel_has_variants():
    for module in Path(offline.__file__).parent.glob("*.py"):
        if "\n@kernel" in module.read_text(encoding="utf-8"):
            import_module(f"normkernels.cuda.{module.stem}")
    assert {family.kernel for family in families()} == set(KERNELS)


def test_kernels_and_forms_are_the_same_in_another_process():
    for family in families():
        assert pickle.loads(pickle.dumps(family.kernel)) is family.kernel
    form = Form(vectors=2, activation="relu")
    assert hash(form) == form._hash
    again = pickle.loads(pickle.dumps(form))
    assert again == form
    assert "_hash" not in vars(again), "that of a string is another in every process"


def test_every_argument_has_a_kind():
    for family in families():
        code = family.kernel.function.__code__
        names = code.co_varnames[: code.co_argcount]
        assert names[-1] == "form"
        assert set(names[:-1]) <= set(KIND)
        assert all(set(mode.absent) <= set(names) for mode in family.modes.values())


def variant(name: str, dtype: str, **form: object) -> Variant:
    """A plain variant of one block, aligned, changed by hand."""
    aligned = [v for v in variants((dtype,)) if v.mode == "" and not v.form.edges and v.form.blocks == 1]
    found = max((v for v in aligned if v.family.kernel.name == name), key=lambda v: v.form.lanes)
    return replace(found, form=replace(found.form, **form))


def test_an_access_of_8_bytes_is_seen(monkeypatch):
    """bfloat16 that does not pass in pairs: the compiler takes halves of 16 bytes."""
    whole = variant("rows.forward", "bfloat16", vectors=1, threads=32, teams=4)
    assert not narrow(whole, look(whole, SM_90))
    monkeypatch.setattr(shares, "_paired", lambda dtype, count: False)
    other = replace(whole, form=replace(whole.form, resident=3))  # the compiler would know the other
    wrong = narrow(other, look(other, SM_90))
    assert wrong == [
        "x must be met 16 bytes at a time, got 4 × 2, 2 × 8",
        "weight must be met 16 bytes at a time, got 2 × 8",
        "bias must be met 16 bytes at a time, got 2 × 8",
        "y must be met 16 bytes at a time, got 2 × 8",
    ]


def test_halved_lanes_are_seen():
    """The accesses of a form with half the lanes are not those of the form that it stands for."""
    whole = variant("rows.backward", "float32", vectors=2, threads=32, teams=4)
    halved = replace(whole, form=replace(whole.form, lanes=2, vectors=4))
    found = look(halved, SM_90)
    assert not narrow(halved, found)
    assert [line.split()[0] for line in narrow(whole, found)] == ["dy", "x", "weight", "dx"]


def test_one_narrow_access_among_wide_ones_is_seen():
    whole = variant("rows.forward", "float32", vectors=2, threads=32, teams=4)
    found = look(whole, SM_90)
    assert not narrow(whole, found)
    more = found._replace(accesses=found.accesses + Counter({Access("y", True, 8): 1}))
    assert narrow(whole, more) == ["y must be met 16 bytes at a time only, got 1 × 8, 2 × 16"]
    fifth = found._replace(accesses=found.accesses + Counter({Access("x", False, 4): 1}))
    assert narrow(whole, fifth) == ["x must be met 16 bytes at a time only, got 5 × 4, 2 × 16"]
    split = found._replace(loads=found.loads - Counter({16: 1}) + Counter({8: 2}))
    assert narrow(whole, split) == ["6 loads of 16 bytes must be kept, got 5"]


def test_a_spill_is_seen():
    """A form that wants more blocks at once than there are registers for."""
    crowded = variant("rows.forward", "float32", vectors=8, threads=256, teams=1, resident=4)
    wrong = problems(crowded, look(crowded, SM_90), DEVICES[SM_90])
    assert any(re.fullmatch(r"\d+ bytes of registers are spilt", line) for line in wrong)
    assert any(re.fullmatch(r"\d+ accesses go to local memory", line) for line in wrong)


@pytest.mark.parametrize(
    ("registers", "shared", "form", "blocks"),
    [
        (32, 0, Form(threads=256), 8),  # 2048 threads
        (32, 0, Form(threads=32), 32),  # 32 blocks
        (33, 0, Form(threads=256), 6),  # 40 registers for each thread, as they are handed out
        (128, 0, Form(threads=256), 2),
        (129, 0, Form(threads=256), 1),
        (255, 0, Form(threads=128), 2),
        (128, 0, Form(threads=1024), 0),  # cannot be launched
        (32, 76 * 1024, Form(threads=64), 2),  # 77 KB of 228 with what the system takes
        (32, 75 * 1024, Form(threads=64), 3),
        (32, 0, Form(threads=4, teams=32), 16),
    ],
)
def test_occupancy(registers, shared, form, blocks):
    """Against NVIDIA's occupancy calculator for compute capability 9.0."""
    found = PLAIN._replace(registers=registers, shared_bytes=shared)
    assert occupancy(found, form, DEVICES[SM_90]) == blocks


def test_too_few_blocks_are_seen():
    fits = variant("rows.forward", "float32", threads=256, teams=1, resident=2)
    assert problems(fits, PLAIN._replace(registers=129), DEVICES[SM_90])[0] == (
        "a multiprocessor has room for 1 blocks, the form wants 2"
    )


PTX = """
.visible .entry f(
	.param .u64 f_param_0, .param .u64 f_param_1, .param .u64 f_param_2
)
{
	ld.param.u64 	%rd1, [f_param_0];
	ld.param.u64 	%rd2, [f_param_1];
	ld.param.u64 	%rd3, [f_param_2];
	cvta.to.global.u64 	%rd4, %rd1;
	cvta.to.global.u64 	%rd5, %rd3;
	and.b64  	%rd6, %rd1, 3;
	add.s64 	%rd7, %rd5, %rd6;
	ld.global.v4.f32 	{%f1, %f2, %f3, %f4}, [%rd4];
	ld.global.nc.u16 	%rs1, [%rd4+2];
$L__BB0_1:
	selp.b64 	%rd8, %rd7, %rd9, %p1;
	@%p2 st.global.v2.f64 	[%rd8+16], {%fd1, %fd2};
	add.s64 	%rd9, %rd8, 64;
	st.release.gpu.s64 [%rd9], %rd2;
	st.shared.f32 	[%rd10], %f1;
}
.func g(
	.param .b64 g_param_0
)
{
	ld.param.b64 	%rd8, [g_param_0];
	st.global.b32 	[%rd8], 0;
}
"""


def test_accesses_are_followed_to_arguments():
    """Through loops and conditions; what is made of the bits of an address is none; functions are apart."""
    assert argument_accesses(PTX, {0: "x", 2: "y"}) == {
        Access("x", False, 16): 1,
        Access("x", False, 2): 1,
        Access("y", True, 16): 1,
        Access("y", True, 8): 1,
    }


def test_machine_accesses():
    text = """
        /*0dd0*/                   LDG.E R20, desc[UR8][R20.64] ;
        /*1280*/               @P0 LDG.E.128.CONSTANT R48, desc[UR6][R48.64] ;
        /*1280*/                   LDG.E.U16 R48, desc[UR6][R48.64] ;
        /*1280*/                   LD.E.64.STRONG.GPU R48, desc[UR6][R48.64] ;
        /*1280*/                   ST.E.64.STRONG.GPU desc[UR6][R48.64], R2 ;
        /*1280*/                   STG.E.128 desc[UR6][R48.64], R2 ;
        /*1280*/                   STL [R1+0xc], R31 ;
        /*1280*/                   LDL.LU.64 R12, [R1] ;
        /*1280*/                   STS.64 [R1], R12 ;
        /*1280*/                   LDC R1, c[0x0][0x28] ;
    """
    assert offline._machine_accesses(text) == (Counter({4: 1, 16: 1, 2: 1, 8: 1}), Counter({8: 1, 16: 1}), 2)


def test_without_the_disassembler_it_is_one_line(normkernels, monkeypatch):
    monkeypatch.setitem(cuda_resources.NEEDED, "no-such-package", "no-such-package[x]")
    shown = normkernels("resources")
    assert shown.code == 2
    assert (
        shown.err
        == "normkernels: compiling for GPUs needs no-such-package: pip install 'no-such-package[x]'\n"
    )


def test_the_compilers_of_cuda_12_have_other_names(monkeypatch):
    """As the extra `cuda12` brings them."""
    installed = {"nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12", "nvidia-cuda-nvrtc-cu12", "numba-cuda"}
    monkeypatch.setattr(cuda_resources, "_version", lambda name: "12.9" if name in installed else None)
    assert cuda_resources.compilers() == ("numba-cuda", "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--kernel", "rows"), ("--dtype", "int8"), ("--arch", "sm_1"), ("--markdown", "none")],
)
def test_the_command_says_what_is_wrong(normkernels, option, value):
    shown = normkernels("resources", option, value)
    assert shown.code == 2
    assert shown.err.startswith(f"normkernels: {option} must ")
    assert shown.err.count("\n") == 1


def test_the_command_writes_a_table(normkernels, monkeypatch, tmp_path):
    from normkernels.cuda import variants as all_variants

    two = [variant("rows.forward", "float32", vectors=1), variant("rows.forward", "float32", resident=16)]
    monkeypatch.setattr(all_variants, "variants", lambda dtypes: two)
    page = tmp_path / "page.md"
    page.write_text(f"{markdown.START}\n{markdown.END}\n")
    shown = normkernels("resources", "--arch", "sm_90", "--markdown", str(page))
    assert shown.code == 0
    text = page.read_text()
    assert "Compiled with `normkernels resources --arch sm_90` (normkernels " in text
    assert "2 variants, 1 of 2 binaries without a complaint." in text
    assert re.search(r"^\| H200 \| float32 \| 2,097,152 / 1,048,576 \|", text, re.M), "what is read once"
    assert re.search(
        r"^- `rows.forward-float32-\S+` for sm_90: \d+ bytes of registers are spilt; ", text, re.M
    )
    assert re.search(r"^\| rows.forward \|  \| float32 \| 1 × 4 \|", text, re.M)
    assert "3·16 + 4·4 | 1·16 + 2·8 |" in text
