"""Launch rules of runs, columns, strips and windows as data."""

import pytest

from cuda_rules import ITEMSIZES, LARGE, LONGEST, PLACES, SMALL, lengths
from normkernels.cuda import config
from normkernels.cuda.config import (
    ACTIVATED,
    GROUPS,
    GROUPS_BACKWARD,
    MOMENTS,
    PAIRS,
    column_form,
    column_rule,
    row_grid,
    run_form,
    run_lanes,
    run_pieces,
    together,
    vectors_of,
)
from normkernels.cuda.devices import SIMULATED
from normkernels.cuda.form import WARP, WIDEST, Form
from normkernels.cuda.strip_rules import STRIPS, STRIPS_FUSED_BACKWARD, strip_form
from normkernels.cuda.walks import WALK, walk_form

RUN_RULES = {"forward": GROUPS, "backward": GROUPS_BACKWARD}
INNER = (1, 2, 3, 7, 8, 16, 49, 64, 196, 784, 3136)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("rule", RUN_RULES.values(), ids=RUN_RULES)
def test_runs_that_a_team_holds(rule, itemsize, places, residual):
    """As many runs as there are vectors for, of which those at the end of a run may be in part beyond it."""
    for inner in INNER:
        count, edges = run_lanes(itemsize, inner, [256 + itemsize * p for p in places])
        per_run, capacities = vectors_of(inner, count, edges), []
        for runs in (n for n in lengths()[::5] if n * inner <= LONGEST):
            form = run_form(runs, inner, itemsize, count, rule, Form(edges=edges), residual)
            needed, of_block = runs * per_run, form.vectors * form.threads
            assert of_block * (form.blocks - 1) < needed <= of_block * form.blocks
            assert form.vectors & (form.vectors - 1) == form.threads & (form.threads - 1) == 0
            assert form.block % WARP == 0
            assert form.block <= max(rule.block, form.threads) <= 1024
            assert form.teams == 1 or form.blocks == 1
            assert (form.lanes, form.edges) == (count, edges)
            held = form.vectors * form.lanes * max(itemsize, 4) // 4
            assert held <= max(rule.elements, 4 * form.lanes // itemsize), "registers"
            capacities.append(form.capacity)
            for device in (LARGE, SMALL):
                if together(form, device):
                    assert form.blocks <= form.threads, "threads read what the blocks of a team have written"
                    blocks = row_grid(10**9, form, device)
                    assert form.blocks == 1 or blocks <= device.multiprocessors * form.resident
                    assert needed <= config.MOST_RESIDENT, "magic is exact"
        assert capacities == sorted(capacities), "more runs have no smaller teams"


def test_a_team_is_together_or_is_not():
    """At the borders: multiprocessors, threads that meet the blocks, what can be counted."""
    assert together(Form(vectors=4, threads=256, blocks=132), LARGE)
    assert not together(Form(vectors=4, threads=256, blocks=133), LARGE)
    assert together(Form(vectors=4, threads=256, blocks=256, resident=2), LARGE)
    assert not together(Form(vectors=4, threads=256, blocks=257, resident=2), LARGE)
    assert together(Form(vectors=32, threads=512, blocks=63), LARGE)
    assert not together(Form(vectors=32, threads=512, blocks=64), LARGE)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_runs_are_met_as_widely_as_they_are_long(itemsize):
    full = 16 // itemsize
    for inner in range(1, 200):
        widest = min(full, 2 ** (inner.bit_length() - 1))
        assert run_lanes(itemsize, inner, [0, 256]) == (widest, inner % widest != 0)
        count, edges = run_lanes(itemsize, inner, [itemsize, 256 + itemsize])
        assert (count, edges) == (widest, widest > 1)
        assert run_lanes(itemsize, inner, [0, itemsize]) == ((1, False) if widest > 1 else (widest, False))


def test_pieces_cover_runs_of_any_length():
    """As the kernels count them; no piece is longer than what a team holds."""
    for inner in (*range(1, 300), 3136, 4095, 4096, 4097, 12544, 50176, 1_000_003):
        for itemsize, full in ((2, 8), (4, 4), (8, 2)):
            for count, edges in ((full, inner % full != 0), (1, False), (full, True)):
                form = Form(lanes=count, edges=edges)
                cut = run_pieces(7, 5, inner, itemsize, form, 132, True)
                assert (cut.tiles - 1) * cut.width < inner <= cut.tiles * cut.width
                assert cut.tiles == 1 or cut.width % count == 0
                assert cut.width + edges * (count - 1) <= cut.form.capacity
                assert cut.form.blocks == 1
                assert cut.depth == 1 or cut.tiles == 1


def test_small_arrays_get_more_pieces_than_deep_ones():
    def depth(outer, deep=True):
        return run_pieces(outer, 64, 49, 4, Form(lanes=4, edges=True), 132, deep).depth

    assert depth(2) <= 2
    assert depth(100_000) > 2
    assert depth(100_000, deep=False) == 1


COLUMN_RULES = {"moments": MOMENTS, "pairs": PAIRS, "activated": ACTIVATED}


@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize("rule", COLUMN_RULES.values(), ids=COLUMN_RULES)
def test_columns_are_met_as_widely_as_arrays_begin_alike(rule, itemsize):
    full = 16 // itemsize
    for size in [*range(1, 100), 1000, 1001, 10**9, 10**9 + 3]:
        for places in [*((p,) * 3 for p in range(full)), (0, 1, 0), (0, 0, full // 2), (1, 1, 1 + full // 2)]:
            addresses = tuple(256 + itemsize * p for p in places)
            form, lead = column_form(itemsize, size, addresses, rule)
            alike = max(n for n in (1, 2, 4, 8) if n <= full and len({p % n for p in places}) == 1)
            assert form.lanes == max(n for n in (1, 2, 4, 8) if n <= alike and (n == 1 or 2 * n <= size))
            assert all(p % form.lanes == lead for p in places), "vectors are aligned"
            assert form.edges == (form.lanes > 1 and (lead > 0 or size % form.lanes > 0))
            held, whole = form.vectors * form.lanes, rule.elements * 4 // max(itemsize, 4)
            narrow = form.edges or form.lanes < full
            assert held == max(form.lanes, whole // 2 if narrow else whole), "registers"
            assert form.block * form.resident <= SIMULATED.threads_per_multiprocessor


def test_rules_of_columns_leave_registers_for_what_is_met():
    assert column_rule(1, None) is column_rule(2, None) is MOMENTS
    assert column_rule(3, None) is PAIRS
    assert column_rule(2, "relu") is ACTIVATED


STRIP_RULES = {"strips": STRIPS, "fused backward": STRIPS_FUSED_BACKWARD}


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
@pytest.mark.parametrize("rules", STRIP_RULES.values(), ids=STRIP_RULES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_strips_are_held_or_streamed(itemsize, rules, device):
    """A team holds all rows, with another one beside it on the device; all columns are taken."""
    for channels in (16, 24, 56, 64, 320, 1000, 2048, 100_000):
        held = []
        for rows in lengths()[1:]:
            found = strip_form(rows, channels, itemsize, (0, 256), rules, device)
            held.append(found is not None)
            if found is None:
                continue
            form, (strips, across, slots) = found
            assert form.vectors * slots * form.blocks >= rows, "a team holds its rows"
            assert form.vectors * slots * (form.blocks - 1) < rows, "in no more blocks than needed"
            assert form.blocks == 1 or 2 * form.blocks <= device.multiprocessors * form.resident
            assert strips * across * form.lanes >= channels > (strips - 1) * across * form.lanes
            assert slots * across == form.block <= 1024
            assert form.block % (across * form.lanes) == 0, "threads share out channels evenly"
            assert across <= WIDEST
            assert 64 <= across * 16 <= 256, "bytes"
            assert form.lanes * itemsize == 16
            assert not form.edges
            vectors = form.vectors * form.lanes * max(itemsize, 4) // 4
            assert vectors <= max(rule.elements for rule in rules if rule.resident == form.resident)
            blocks = row_grid(strips, form, device)
            assert 0 < blocks
            assert form.blocks == 1 or blocks <= device.multiprocessors * form.resident
            assert blocks % form.blocks == 0
        assert held == sorted(held, reverse=True), "longer columns are not held where shorter ones are not"
        vectors = channels * itemsize / 16
        wide = -(-vectors // 4) * 4
        assert held[0] == (vectors == int(vectors) and wide - vectors <= vectors / 3), channels
    assert sum(held) > 2000


def test_strips_begin_with_a_vector():
    assert strip_form(100, 64, 4, (0, 256), STRIPS, LARGE) is not None
    assert strip_form(100, 66, 4, (0, 256), STRIPS, LARGE) is None
    assert strip_form(100, 64, 4, (0, 260), STRIPS, LARGE) is None
    assert strip_form(100, 8, 4, (0, 256), STRIPS, LARGE) is None, "half of a strip would be idle"


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_vectors_of_windows_are_of_one_channel_and_aligned(itemsize):
    for inner in range(1, 100):
        for places in PLACES.values():
            form = walk_form(itemsize, inner, tuple(itemsize * p for p in places), WALK)
            assert inner % form.lanes == 0
            assert all(p % form.lanes == 0 for p in places)
            wider = 2 * form.lanes
            assert wider > 16 // itemsize or inner % wider or any(p % wider for p in places)
