"""Arrays of several calls as one batch and apart again; and which calls may share a run at all, with numpy as model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.joining import Entry, Layout, Refused, bad_rows, join, split
from specialists.trials import QUEUE_SECONDS, is_apart, measure

INT, FLOAT, HALF, BOOL = (np.dtype(kind) for kind in (np.int64, np.float32, np.float16, np.bool_))

ENCODER = Layout(
    [Entry("ids", INT, ("batch", "length")), Entry("mask", INT, ("batch", "length"))],
    [Entry("pooled", FLOAT, ("batch", 2)), Entry("each", FLOAT, ("batch", "length"))],
)
POOLER = Layout([Entry("x", FLOAT, ("batch", "length"))], [Entry("y", FLOAT, ("batch",))])

Model = Callable[[Sequence[Any]], list[Any]]


def encoder_call(*ids: int) -> list[np.ndarray]:
    array = np.array([ids], np.int64)
    return [array, np.ones_like(array)]


def encoder(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Counts the unmasked, adds their numbers up, and doubles each."""
    ids, mask = inputs
    return [np.stack([(ids * mask).sum(1), mask.sum(1)], 1).astype(np.float32), (2.0 * ids).astype(np.float32)]


def random_array(chance: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return (chance.standard_normal(shape) * 50).astype(dtype)


# Round trips.


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=8),
    st.sampled_from([INT, FLOAT, HALF, BOOL]),
    st.sampled_from([(), (3,), (2, 2)]),
    st.integers(0, 9),
)
def test_what_is_joined_comes_apart_as_it_was(
    sizes: list[tuple[int, int]], dtype: np.dtype, rest: tuple[int, ...], seed: int
) -> None:
    shape = ("batch", "length", *rest)
    layout = Layout(
        [Entry("a", dtype, shape), Entry("b", FLOAT, ("batch", 2))],
        [Entry("a_again", dtype, shape), Entry("b_again", FLOAT, ("batch", 2))],
    )
    chance = np.random.default_rng(seed)
    calls = [
        [random_array(chance, dtype, (rows, length, *rest)), random_array(chance, FLOAT, (rows, 2))]
        for rows, length in sizes
    ]
    feeds = join(layout, calls)
    rows, longest = sum(rows for rows, _ in sizes), max(length for _, length in sizes)
    assert feeds["a"].shape == (rows, longest, *rest)
    assert feeds["a"].dtype == dtype
    own = sum(call[0].astype(bool).sum() for call in calls)
    assert feeds["a"].astype(bool).sum() == own  # the rest is zeros
    for call, found in zip(calls, split(layout, calls, list(feeds.values())), strict=True):
        assert list(found) == ["a_again", "b_again"]
        for given_, again in zip(call, found.values(), strict=True):
            assert again.dtype == given_.dtype
            np.testing.assert_array_equal(again, given_)


def test_integers_of_different_lengths_are_filled_up_with_zeros() -> None:
    feeds = join(ENCODER, [encoder_call(5, 6, 7), encoder_call(8)])
    assert feeds["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert feeds["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_arrays_that_do_not_lie_in_one_piece_are_joined_right() -> None:
    table = np.arange(24, dtype=np.int64).reshape(4, 6)
    calls = [[table[:1, ::2], table[1:2, ::2]], [table.T[:1], table.T[1:2]], [table[2:3, :5], table[3:4, 4::-1]]]
    feeds = join(ENCODER, calls)
    for row, call in enumerate(calls):
        for name, array in zip(("ids", "mask"), call, strict=True):
            assert feeds[name][row, : array.shape[1]].tolist() == array[0].tolist()


def test_outputs_of_each_position_are_cut_to_each_callers_length() -> None:
    calls = [encoder_call(5, 6, 7), encoder_call(8)]
    long, short = split(ENCODER, calls, encoder(list(join(ENCODER, calls).values())))
    assert long["each"].tolist() == [[10, 12, 14]]
    assert short["each"].tolist() == [[16]]
    assert short["pooled"].tolist() == [[8, 1]]


def test_a_kept_answer_does_not_keep_a_large_batch() -> None:
    layout = Layout([Entry("x", FLOAT, ("batch", 3))], [Entry("y", FLOAT, ("batch", 20_000))])
    calls = [[np.ones((1, 3), np.float32)] for _ in range(4)]
    batch = np.arange(80_000, dtype=np.float32).reshape(4, -1)
    for row, found in enumerate(split(layout, calls, [batch])):
        assert not np.shares_memory(found["y"], batch)
        assert found["y"].tolist() == batch[row : row + 1].tolist()


# Where a call goes.


def test_a_calls_place_is_its_rows_length_and_shape() -> None:
    assert ENCODER.place(encoder_call(1, 2, 3)) == (1, 3, 3)
    x = np.ones((2, 5), np.float32)
    assert POOLER.place([x])[:2] == (2, 5)
    images = Layout([Entry("x", FLOAT, ("n", 3, "h", "w"))], [Entry("y", FLOAT, ("n", 2))])
    rows, length, shape = images.place([np.zeros((1, 3, 8, 6), np.float32)])
    assert (rows, length) == (1, 14)
    assert shape != images.place([np.zeros((1, 3, 6, 8), np.float32)])[2]


@pytest.mark.parametrize(
    ("inputs", "outputs", "arrays"),
    [
        ([("x", (1, "length"))], [("y", (1, "length"))], [(1, 40)]),  # a fixed first axis
        ([("x", ("n", 2)), ("factor", ())], [("y", ("n", 2))], [(4, 2), ()]),  # a scalar
        ([("x", ("n", 2))], [("y", ("m", 2))], [(3, 2)]),  # an output that has no row for each
        ([("x", ("n", 2))], [("y", ("n", 2)), ("loss", ())], [(3, 2)]),
        ([("x", ("n", "l")), ("y", ("n", "l"))], [("z", ("n",))], [(1, 3), (1, 4)]),  # equal names, other lengths
        ([("x", ("n", "l", 2)), ("y", ("n", "l", 2))], [("z", ("n",))], [(1, 3, 2), (1, 4, 2)]),
        ([("x", ("n", "l")), ("y", ("n", 2))], [("z", ("n",))], [(1, 3), (2, 2)]),  # other rows
        ([("x", ("n", "l"))], [("z", ("n",))], [(0, 3)]),  # nothing at all
        ([("x", ("n", "l"))], [("z", ("n",))], [(1, 0)]),
    ],
)
def test_what_has_no_rows_to_share_runs_by_itself(inputs: list, outputs: list, arrays: list) -> None:
    layout = Layout(
        [Entry(name, FLOAT, shape) for name, shape in inputs], [Entry(name, FLOAT, shape) for name, shape in outputs]
    )
    given_ = [np.zeros(shape, np.float32) for shape in arrays]
    rows, length, shape = layout.place(given_)
    one_row_of_nothing = len(inputs) == 1 and layout.joinable and arrays[0] == (1, 0)
    assert shape is None or one_row_of_nothing
    assert rows == 1
    # As long as what goes in: what its run takes can be foretold from it.
    assert length == max(1, sum(array.size for array in given_))


# Which calls may share a run.


def mean_of_batch(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    ids, mask = inputs
    pooled, each = encoder(inputs)
    return [pooled - (ids * mask).sum(1).mean(), each]


def largest_of_batch(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """As dynamic quantisation does: the step is a part of the largest number of all rows, whatever their order."""
    pooled, each = encoder(inputs)
    step = np.abs(each).max() / 127
    return [pooled, np.round(each / step) * step]


@pytest.mark.parametrize("ids", [(5, 6, 7, 8), (5, 5, 5), (0, 0), (1, 0, 1), (1,), (9,), (0,), (-1, -1)])
def test_independent_rows_may_share_runs_and_a_mask_lets_them_be_filled_up(ids: tuple[int, ...]) -> None:
    call = encoder_call(*ids)
    assert is_apart(encoder, ENCODER, call, longer=False) is False
    assert is_apart(encoder, ENCODER, call, longer=True) is False


@pytest.mark.parametrize("ids", [(5, 6, 7, 8), (5, 5, 5), (5, 6, 5), (9,), (1, 0, 0), (0, 0)])
@pytest.mark.parametrize("model", [mean_of_batch, largest_of_batch])
def test_rows_that_depend_on_each_other_never_share_a_run(model: Model, ids: tuple[int, ...]) -> None:
    call = encoder_call(*ids)
    if model is largest_of_batch and max(ids) < 2:
        pytest.skip("zeros and ones have the same largest number whatever is done to them")
    assert is_apart(model, ENCODER, call, longer=False) is not False


@pytest.mark.parametrize("dtype", [INT, FLOAT, BOOL])
@pytest.mark.parametrize("values", [[0], [1], [1, 1], [7], [3, 3]])
def test_a_mean_over_rows_shows_even_with_one_number_a_row(dtype: np.dtype, values: list[int]) -> None:
    layout = Layout([Entry("x", dtype, ("n",))], [Entry("y", FLOAT, ("n",))])

    def centred(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        x = inputs[0].astype(np.float32)
        return [x - x.mean()]

    assert is_apart(centred, layout, [np.array(values, dtype)], longer=False) is not False


UNMASKED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda x: x.mean(1),
    "max": lambda x: x.max(1),
    "min": lambda x: x.min(1),
    "last": lambda x: x[:, -1],
    "count": lambda x: np.full(len(x), x.shape[1], np.float32),
    "softmax": lambda x: (np.exp(x) / np.exp(x).sum(1, keepdims=True)).max(1),
}


@pytest.mark.parametrize("pool", UNMASKED)
@pytest.mark.parametrize(
    "x", [(1.0, 2.0, 3.0), (-1.0, -2.0, -3.0), (4.0, 4.0, 4.0, 4.0, 4.0), (5.0,), (0.5, 0.0), (0.0, 0.0)]
)
def test_what_is_filled_up_without_a_mask_shows(pool: str, x: tuple[float, ...]) -> None:
    def model(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [UNMASKED[pool](inputs[0]).astype(np.float32)]

    call = [np.array([x], np.float32)]
    assert is_apart(model, POOLER, call, longer=True) is not False
    assert is_apart(model, POOLER, call, longer=False) is False or not any(x)


def test_a_sum_needs_no_mask() -> None:
    def model(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [inputs[0].sum(1)]

    assert is_apart(model, POOLER, [np.array([[1.0, 2.0, 3.0]], np.float32)], longer=True) is False


def test_a_call_of_nothing_but_zeros_does_not_tell() -> None:
    call = [np.zeros((1, 4), np.float32)]
    assert is_apart(lambda inputs: [inputs[0].mean(1)], POOLER, call, longer=True) is None


def test_a_model_that_answers_no_made_up_call_does_not_tell() -> None:
    call = encoder_call(5, 6, 7)

    def picky(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if inputs[0][0, 0] != 5:
            raise ValueError("not this one")
        return encoder(inputs)

    assert is_apart(picky, ENCODER, call, longer=False) is None

    def silent(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [value if inputs[0][0, 0] == 5 else value * np.nan for value in encoder(inputs)]

    assert is_apart(silent, ENCODER, call, longer=False) is None


def test_a_call_of_the_largest_length_can_be_tried() -> None:
    def short_sighted(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert inputs[0].shape[1] <= 8, "no more than eight positions"
        return encoder(inputs)

    assert is_apart(short_sighted, ENCODER, encoder_call(*range(3, 11)), longer=True) is False


def test_an_output_of_another_length_than_the_inputs_is_never_filled_up() -> None:
    layout = Layout([Entry("x", FLOAT, ("batch", "length"))], [Entry("y", FLOAT, ("batch", "other"))])
    call = [np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)]
    assert is_apart(lambda inputs: [2 * inputs[0]], layout, call, longer=True) is True
    assert is_apart(lambda inputs: [2 * inputs[0]], layout, call, longer=False) is False


def test_outputs_without_a_row_for_each_are_apart() -> None:
    call = [np.array([[1.0, 2.0]], np.float32)]
    assert is_apart(lambda inputs: [inputs[0].sum(1)[:1]], POOLER, call, longer=False) is True
    assert is_apart(lambda inputs: [inputs[0].sum()], POOLER, call, longer=False) is True


def test_a_model_that_draws_lots_is_apart() -> None:
    chance = np.random.default_rng(0)
    call = [np.array([[1.0, 2.0]], np.float32)]
    assert is_apart(lambda inputs: [chance.random(len(inputs[0]))], POOLER, call, longer=False) is True


# How large batches should be.


def test_a_run_with_a_large_fixed_part_wants_large_batches() -> None:
    call = encoder_call(*range(10))
    run_cells, most = measure(lambda feeds: 1e-3 + 1e-6 * len(feeds["ids"]), ENCODER, call, 10)
    assert most == 640
    assert run_cells == pytest.approx((1e-3 + QUEUE_SECONDS) / 1e-6 * 10, rel=0.01)


def test_a_run_that_grows_faster_than_its_rows_wants_small_ones() -> None:
    call = encoder_call(*range(10))
    _, most = measure(lambda feeds: 5e-3 * len(feeds["ids"]) ** 1.5, ENCODER, call, 10)
    assert most == 10


# What does not fit.


def test_bad_rows_are_found() -> None:
    values = np.ones((3, 2), np.float32)
    assert bad_rows([values, np.ones(3, np.int64)]) is None
    other = values.copy()
    values[1, 0], other[2, 1] = np.nan, np.inf
    found = bad_rows([values, other])
    assert found is not None
    assert found.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "value", [[np.array([np.nan])], [{1: float("inf")}], {"a": float("nan")}, (np.ones(2), [np.array([-np.inf])])]
)
def test_a_sequence_or_a_map_that_is_not_finite_is_refused(value: Any) -> None:
    layout = Layout([], [Entry("y", None, ())])
    with pytest.raises(Refused, match="'y' is not finite"):
        layout.check_outputs([value])
    layout.check_outputs([[np.ones(2), {"a": 1.0, "b": "text"}]])
