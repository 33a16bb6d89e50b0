"""Launch rules of the CUDA backend as data: every row length has one, and it can be launched."""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from cuda_rules import ITEMSIZES, LARGE, LONGEST, PLACES, SMALL, lengths
from normkernels.cuda import config
from normkernels.cuda.config import (
    BACKWARD,
    FORWARD,
    GROUPS,
    GROUPS_BACKWARD,
    Rule,
    lanes,
    magic,
    row_form,
    row_grid,
    together,
)
from normkernels.cuda.devices import DeviceProperties
from normkernels.cuda.form import WARP, Form
from normkernels.cuda.limits import longest
from normkernels.cuda.strip_rules import STRIPS, STRIPS_FUSED_BACKWARD, strip_form

RULES = {"forward": FORWARD, "backward": BACKWARD}
SOURCES = {file.name: file.read_text(encoding="utf-8") for file in Path(config.__file__).parent.glob("*.py")}


def chosen(cols: int, itemsize: int, places: tuple[int, ...], rule: Rule, residual: bool) -> Form:
    count, edges = lanes(itemsize, cols, [256 + itemsize * p for p in places])
    return row_form(cols, itemsize, count, rule, Form(edges=edges), residual)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_row_length_has_a_rule(rule, itemsize, places, residual):
    capacities = {}
    for cols in lengths():
        form = chosen(cols, itemsize, places, rule, residual)
        beside = form.lanes - 1 if form.edges else 0  # a row may begin at the end of a vector
        assert cols + beside <= form.capacity, "a team holds its row"
        assert form.blocks == 1 or cols + beside > form.capacity // form.blocks, (
            "in no more blocks than needed"
        )
        assert form.vectors & (form.vectors - 1) == form.threads & (form.threads - 1) == 0, "powers of two"
        assert form.block <= max(rule.block, form.threads) <= 1024
        assert form.block * form.resident == rule.threads * rule.resident, "registers of a multiprocessor"
        assert form.block <= form.bounds[0] <= 1024, "what is launched is what was compiled"
        assert form.bounds[0] * form.bounds[1] == form.block * form.resident
        assert form.teams == 1 or (form.blocks == 1 and form.threads <= WARP), "parts of warps"
        assert form.block % WARP == 0, "warps are full"
        held = form.vectors * form.lanes * max(itemsize, 4) // 4
        assert held <= max(rule.elements, 4 * form.lanes // itemsize), "registers"
        capacities.setdefault((form.lanes, form.edges), []).append(form.capacity)
    assert all(c == sorted(c) for c in capacities.values()), "longer rows have no smaller teams"


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_row_is_held_by_blocks_that_are_there_at_once_or_read_twice(rule, itemsize, places, device):
    """To several millions: held as long as the device has the registers, and none is longer than those."""
    held, streamed = {}, {}
    for cols in [*lengths()[::7], *(n + d for n in range(300_000, 4_000_000, 9973) for d in (0, 1)), 10**9]:
        form = chosen(cols, itemsize, places, rule, False)
        alike = form.lanes, form.edges
        if not together(form, device):
            streamed.setdefault(alike, []).append(cols)
            continue
        held.setdefault(alike, []).append(cols)
        assert cols <= form.capacity
        assert form.blocks <= form.threads, "threads read what the blocks of a team have written"
        for rows in (1, 7, 10**9):
            blocks, needed = row_grid(rows, form, device), -(-rows // form.teams)
            assert blocks % form.blocks == 0
            if form.blocks == 1:
                assert blocks == needed, "the device shares them out"
            else:
                assert 0 < blocks <= min(device.multiprocessors * form.resident, needed * form.blocks)
    for (count, edges), of_length in held.items():
        assert max(of_length) < min(streamed[count, edges]), "longer rows are not held again"
        # What a thread holds, all over the device, but for the last block.
        room = config.held(rule, itemsize, count, Form(edges=edges), False) // count * count
        blocks = min(device.multiprocessors * rule.resident, rule.threads)
        registers = min(max(count, room) * blocks * rule.threads, (config.MOST_RESIDENT - 1) * count)
        assert max(of_length) <= registers
        if registers > 300_000:
            assert max(of_length) > 0.95 * registers


def test_a_form_in_which_rows_begin_anywhere_holds_the_same():
    for rule in RULES.values():
        for itemsize, lanes_ in ((2, 8), (4, 4), (8, 2)):
            for fused in (Form(edges=True), Form(edges=True, activation="gelu")):
                assert config.held(rule, itemsize, lanes_, fused, True) == 32 // max(itemsize, 4)


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_the_rows_of_a_team_begin_alike_in_a_sweep(itemsize, places, device):
    """Blocks that are there at once, none without rows; as many teams as rows, or every phase has as many."""
    streamed = []
    for cols in lengths()[::3]:
        form = chosen(cols, itemsize, places, BACKWARD, False)
        if not together(form, device):
            continue
        room = device.multiprocessors * form.resident
        for rows in (1, 2, 3, 5, 9, 100, 1001, 10**6):
            blocks = config.sweep_grid(rows, cols, form, device)
            if blocks == 0:
                assert form.edges
                assert form.lanes > room // form.blocks, "there are fewer teams than places"
                streamed.append(cols)
                continue
            assert streamed[-1:] != [cols], "how a row is read does not depend on how many there are"
            teams = blocks // form.blocks * form.teams
            assert blocks <= room
            assert blocks % form.blocks == 0
            assert teams < rows + form.teams, "no blocks without rows"
            assert teams >= rows or not form.edges or teams * cols % form.lanes == 0
            assert teams >= rows or blocks > room - form.blocks * form.lanes, "few places stay empty"
    assert bool(streamed) == (places != PLACES["unlike"]), "these are read one by one, wherever they begin"
    assert min(streamed, default=LONGEST) > 15_000


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
def test_samples_of_a_group_are_shared_out(device):
    """What teams write is bounded by the device and the parameters, and there is work for all of them."""
    short, long = Form(threads=16, teams=8, resident=4), Form(threads=256, resident=2)
    for form in (short, long, replace(long, blocks=9)):
        teams = device.multiprocessors * form.resident // form.blocks * form.teams
        for groups in (1, 3, 32, 1000, 10**6):
            for samples in (1, 2, 7, 256, 10**6):
                parts = config.group_parts(samples, groups, form, device)
                assert 1 <= parts <= samples
                assert parts * groups < config.SHARED_OUT * teams + groups
                each = -(-samples // parts)
                assert each * parts < samples + each, "all have as many samples, but the last ones one less"
                assert each == 1 or (parts + 1) * groups > config.SHARED_OUT * teams / 2, "work for all"


def test_a_thread_walks_over_rows_that_begin_alike():
    for itemsize, full in ((2, 8), (4, 4), (8, 2)):
        for count, edges in ((full, True), (full, False), (1, False)):
            for activation in (None, "gelu"):
                form = config.long_form(itemsize, count, Form(edges=edges, activation=activation))
                assert (form.lanes, form.edges, form.blocks, form.teams) == (count, edges, 1, 1)
                assert form.vectors * count * max(itemsize, 4) <= max(16, 4 * full), "registers"
                for cols in range(1_000_000, 1_000_000 + 2 * full, 1 if edges else full):
                    for rows in (1, 2, 3, 7, 100):
                        phases = config.phases_of(rows, cols, form)
                        assert phases == rows or phases * cols % count == 0
                        assert all(k * cols % count for k in range(1, phases)), "no more than are needed"
                        blocks = config.long_grid(cols, phases, form)
                        needed = cols + edges * (count - 1)
                        assert blocks % phases == 0
                        assert (
                            (blocks // phases - 1) * form.capacity
                            < needed
                            <= blocks // phases * form.capacity
                        )


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_the_longest_that_is_read_once_is_the_last_that_is_held(itemsize, device):
    found, lanes_ = longest(itemsize, device), 16 // itemsize

    def row(rule, cols):
        form = chosen(cols, itemsize, (0, 0), rule, False)
        return together(form, device) and (
            rule is FORWARD or config.sweep_grid(10**9, cols, form, device) > 0
        )

    for name, beside in (("row", 0), ("row, odd", 1)):
        for rule, cols in zip((FORWARD, BACKWARD), found[name], strict=True):
            assert cols % lanes_ == beside
            assert row(rule, cols)
            assert not row(rule, cols + lanes_)
    for rules, rows in zip((STRIPS, STRIPS_FUSED_BACKWARD), found["column, activation"], strict=True):
        assert strip_form(rows, 1024, itemsize, (0,), rules, device)
        assert not strip_form(rows + lanes_, 1024, itemsize, (0,), rules, device)
    assert found["column"] == (found["column, activation"][0],) * 2
    for rule, inner in zip((GROUPS, GROUPS_BACKWARD), found["channel or group"], strict=True):
        held = [config.held_runs(1, n, itemsize, (0,), rule, device, None) for n in (inner, inner + lanes_)]
        assert [form is None for form in held] == [False, True]


def test_a_thread_holds_less_where_something_else_takes_registers():
    plain, whole = Form(), {"itemsize": 4, "lanes": 4}
    assert config.held(FORWARD, **whole, form=plain, residual=False) == 32
    assert config.held(FORWARD, **whole, form=plain, residual=True) == 16
    assert config.held(FORWARD, **whole, form=Form(activation="gelu"), residual=False) == 16
    assert config.held(FORWARD, **whole, form=Form(edges=True), residual=False) == 8
    assert config.held(FORWARD, itemsize=4, lanes=1, form=plain, residual=False) == 16
    assert config.held(FORWARD, itemsize=4, lanes=1, form=plain, residual=True) == 8
    assert config.held(FORWARD, itemsize=8, lanes=2, form=plain, residual=False) == 8
    assert config.held(BACKWARD, itemsize=2, lanes=1, form=plain, residual=True) == 4


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_16_bytes_wherever_alignment_allows(itemsize):
    full = 16 // itemsize
    for cols in range(1, 200):
        divisible = cols % full == 0
        assert lanes(itemsize, cols, [0, 256]) == (full, not divisible)
        assert lanes(itemsize, cols, [itemsize, 256 + itemsize]) == (full, True)
        assert lanes(itemsize, cols, [0, itemsize]) == (1, False)
        # Parameters that begin elsewhere are no reason to read tensors in pieces.
        assert lanes(itemsize, cols, [0, 256], [4]) == (full, True)


def test_magic_is_exact():
    """i // inner for every run that a row may have, at both ends of every quotient."""
    rng = np.random.default_rng(3)
    most = config.MOST_RESIDENT
    for inner in [*range(1, 130), *rng.integers(130, most, 200).tolist(), most - 1, most]:
        first = np.arange(0, most + 1, inner, dtype=np.int64)
        i = np.concatenate([first, first + inner - 1, first + inner // 2])
        i = i[i < most]
        assert np.array_equal(i * magic(inner) >> config.MAGIC_BITS, i // inner), inner


EVERY = {
    "forward, float32, aligned": (FORWARD, 4, PLACES["aligned"]),
    "forward, bfloat16, alike": (FORWARD, 2, PLACES["alike"]),
    "backward, float64, unlike": (BACKWARD, 8, PLACES["unlike"]),
    "backward, float16, aligned": (BACKWARD, 2, PLACES["aligned"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "itemsize", "places"), EVERY.values(), ids=EVERY)
def test_every_row_length_without_exception(rule, itemsize, places):
    """What is tried above of some thousand lengths in detail."""
    for cols in range(1, LONGEST + 1):
        form = chosen(cols, itemsize, places, rule, False)
        needed = cols + (form.lanes - 1 if form.edges else 0)
        if not form.capacity // form.blocks * (form.blocks - 1) < needed <= form.capacity:
            raise AssertionError(f"{cols} elements, {form}")


@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("cols", [4, 6, 64])
def test_parameters_are_read_no_wider_than_they_lie(cols, itemsize):
    for place in range(0, 16, max(itemsize, 4)):
        count, edges = lanes(itemsize, cols, (256,), (512 + place,))
        assert edges or place % min(16, max(itemsize, 4) * count) == 0


@pytest.mark.parametrize("name", ["ACCESS_BYTES", "WARP"])
def test_what_devices_have_in_common_is_said_once(name):
    assert [file for file, text in SOURCES.items() if re.search(rf"^{name} = ", text, re.M)] == ["form.py"]


@pytest.mark.parametrize("name", [field.name for field in fields(DeviceProperties) if field.name != "name"])
def test_a_property_of_devices_is_asked_for_where_something_goes_by_it(name):
    assert any(re.search(rf"\.{name}\b", text) for file, text in SOURCES.items() if file != "devices.py")
