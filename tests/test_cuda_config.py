"""Launch rules of the CUDA backend as data: every row length has one, and it can be launched."""

from dataclasses import replace

import numpy as np
import pytest

from normkernels.cuda import config
from normkernels.cuda.config import (
    BACKWARD,
    FORWARD,
    Rule,
    lanes,
    longest,
    magic,
    row_form,
    row_grid,
)
from normkernels.cuda.devices import SIMULATED
from normkernels.cuda.form import Form

LONGEST = 300_000
ITEMSIZES = (2, 4, 8)
RULES = {
    "forward": (FORWARD, False),
    "backward": (BACKWARD, False),
    "columns": (BACKWARD, True),
}
# Where arrays begin, in elements: all at a multiple of 16 bytes, all elsewhere, each somewhere.
PLACES = {"aligned": (0, 0, 0), "alike": (1, 1, 1), "unlike": (0, 1, 0)}
LARGE, SMALL = SIMULATED, replace(SIMULATED, multiprocessors=68)


def chosen(
    cols: int, itemsize: int, places: tuple[int, ...], rule: Rule, columns: bool, residual: bool
) -> Form:
    count, edges = lanes(itemsize, cols, [256 + itemsize * p for p in places], columns=columns)
    return row_form(cols, itemsize, count, rule, Form(edges=edges), residual)


def lengths() -> list[int]:
    """All of the shorter ones; then on both sides of powers of two, and everywhere some of each remainder."""
    powers = [n + d for n in 2 ** np.arange(11, 19) for d in range(-9, 10)]
    spread = [n + d for n in np.geomspace(2100, LONGEST, 30).astype(int) for d in range(8)]
    return sorted({*range(1, 2100), *map(int, powers + spread), LONGEST})


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize(("rule", "columns"), RULES.values(), ids=RULES)
def test_every_row_length_has_a_rule(rule, columns, itemsize, places, residual):
    capacities = {}
    for cols in lengths():
        form = chosen(cols, itemsize, places, rule, columns, residual)
        beside = form.lanes - 1 if form.edges else 0  # a row may begin at the end of a vector
        assert cols + beside <= form.capacity, "a team holds its row"
        assert form.blocks == 1 or cols + beside > form.capacity // form.blocks, (
            "in no more blocks than needed"
        )
        assert form.vectors & (form.vectors - 1) == form.threads & (form.threads - 1) == 0, "powers of two"
        assert form.block <= max(rule.block, form.threads) <= 1024
        assert form.block * form.resident <= SIMULATED.threads_per_multiprocessor
        assert form.teams == 1 or form.blocks == 1
        assert form.block % config.WARP == 0, "warps are full"
        # threads() < blocks read what the blocks of a team have written
        assert form.blocks <= form.threads or form.blocks == 1
        held = form.vectors * form.lanes * max(itemsize, 4) // 4
        assert held <= max(rule.elements, 4 * form.lanes // itemsize), "registers"
        capacities.setdefault((form.lanes, form.edges), []).append(form.capacity)
    assert all(c == sorted(c) for c in capacities.values()), "longer rows have no smaller teams"


@pytest.mark.parametrize("device", [LARGE, SMALL], ids=["132", "68"])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize(("rule", "columns"), RULES.values(), ids=RULES)
def test_a_grid_is_resident_or_refused(rule, columns, itemsize, places, device):
    """Blocks of a team wait for each other: on a device they are all at once, or the row is too long."""
    refused = 0
    for cols in [*lengths()[::7], 524_288, 1 << 20, (1 << 20) + 1, 10**7]:
        form = chosen(cols, itemsize, places, rule, columns, False)
        for rows in (1, 7, 10**9):
            if form.blocks > 1 and cols > longest(form, device):
                refused += 1
                with pytest.raises(
                    ValueError, match=rf"^rows must have at most \d+ elements .*, got {cols}$"
                ):
                    row_grid(rows, cols, form, device)
                continue
            blocks = row_grid(rows, cols, form, device)
            assert 0 < blocks <= device.multiprocessors * form.resident
            assert blocks % form.blocks == 0
            assert rows >= 10**9 or blocks <= -(-rows // form.teams) * form.blocks, "no blocks without rows"
    assert refused


@pytest.mark.parametrize("itemsize", ITEMSIZES)
@pytest.mark.parametrize(("rule", "columns"), RULES.values(), ids=RULES)
def test_the_longest_row_is_taken_and_the_next_refused(rule, columns, itemsize):
    for device in (LARGE, SMALL):
        many = chosen(LONGEST, itemsize, PLACES["aligned"], rule, columns, False)
        most = longest(many, device)
        assert most <= config.MOST_RESIDENT, "magic is exact"
        assert row_grid(5, most, replace(many, blocks=device.multiprocessors), device)
        with pytest.raises(ValueError, match=f"at most {most} elements on this device, got {most + 1}"):
            row_grid(5, most + 1, many, device)


@pytest.mark.parametrize("itemsize", ITEMSIZES)
def test_the_longest_row_fits_its_form(itemsize):
    """`longest` is asked with the form of some long row, and is true of the form that the longest gets."""
    for rule, columns in RULES.values():
        for places in PLACES.values():
            most = longest(chosen(LONGEST, itemsize, places, rule, columns, False), SMALL)
            for cols in (most, most - 1, most - 15):
                form = chosen(cols, itemsize, places, rule, columns, False)
                if longest(form, SMALL) == most:  # else its lanes are fewer, by its remainder
                    assert form.blocks <= SMALL.multiprocessors * form.resident


def test_a_thread_holds_less_where_something_else_takes_registers():
    plain, whole = Form(), {"itemsize": 4, "lanes": 4}
    assert config.held(FORWARD, **whole, form=plain, residual=False) == 32
    assert config.held(FORWARD, **whole, form=plain, residual=True) == 16
    assert config.held(FORWARD, **whole, form=Form(activation="gelu"), residual=False) == 16
    assert config.held(FORWARD, **whole, form=Form(edges=True), residual=False) == 8
    assert config.held(FORWARD, itemsize=4, lanes=1, form=plain, residual=False) == 16
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
        count, edges = lanes(itemsize, cols, [0, 256], columns=True)
        assert not edges
        assert count == np.gcd(cols, full), "the most that divides the row"
        assert lanes(itemsize, cols, [0, itemsize], columns=True) == (1, False)
        # Parameters that begin elsewhere are no reason to read tensors in pieces, but for sums over columns.
        assert lanes(itemsize, cols, [0, 256], [4])[0] == full
    assert lanes(itemsize, 64, [0], [4], columns=True)[0] < full or itemsize == 8


def test_magic_is_exact():
    """i // inner for every run that a row may have, at both ends of every quotient."""
    rng = np.random.default_rng(3)
    most = config.MOST_RESIDENT
    for inner in [*range(1, 130), *rng.integers(130, most, 200).tolist(), most - 1, most]:
        first = np.arange(0, most + 1, inner, dtype=np.int64)
        i = np.concatenate([first, first + inner - 1, first + inner // 2])
        i = i[i < most]
        assert np.array_equal(i * magic(inner) >> config.MAGIC_BITS, i // inner), inner
