"""Rows that make up for each other's errors: the recursion against its definition, and what it gains."""

from __future__ import annotations

import numpy
import pytest

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.methods import compensation
from quantcli.methods.compensation import Metric
from quantcli.methods.coupling import Coupling, coupled, pulled

TYPES = ("Q4_0", "Q3_K", "IQ2_XS")


def information(parts: int, width: int, seed: int = 0) -> numpy.ndarray:
    """A few strong directions in every part."""
    random = numpy.random.default_rng(seed)
    strong = random.normal(size=(parts, width, 3)) * 3
    return (strong @ strong.transpose(0, 2, 1) + numpy.eye(width)).astype(numpy.float32)


def whole(blocks: numpy.ndarray) -> numpy.ndarray:
    parts, width = blocks.shape[:2]
    result = numpy.zeros((parts * width,) * 2)
    for part, one in enumerate(blocks):
        result[part * width : (part + 1) * width, part * width : (part + 1) * width] = one
    return result


@pytest.mark.parametrize(("parts", "width"), [(1, 40), (1, 600), (2, 32), (3, 20), (9, 16), (4, 1), (1, 1)])
def test_errors_that_are_free_end_with_the_pivots_alone(parts: int, width: int) -> None:
    """With an encoder whose errors are unit vectors of their own, tr(A E E^T) is the sum of the pivots."""
    blocks = information(parts, width, width)
    damping = 0.3
    coupling, rows = Coupling.of(blocks, damping), parts * width
    damped = (1 - damping) * whole(blocks) + damping * numpy.diag(whole(blocks).diagonal())
    assert all(sorted(order) == list(range(width)) for order in coupling.order.tolist())
    seen: list[int] = []

    def encode(goal: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        noise = numpy.zeros(goal.shape, numpy.float32)
        for row in range(len(goal)):
            noise[row, len(seen)] = 1
            seen.append(row)
        return numpy.zeros((len(goal), 1), numpy.uint8), goal - noise

    target = numpy.random.default_rng(1).normal(size=(rows, rows)).astype(numpy.float32)
    goals, made = coupling.goals(target, encode)
    assert len(seen) == rows and made.shape == (rows, 1)
    places = coupling.order + width * numpy.arange(parts)[:, None]
    groups = [places[:, start : start + coupling.together].reshape(-1) for start in range(0, width, coupling.together)]
    order = numpy.concatenate(groups)
    errors = numpy.empty_like(target, dtype=numpy.float64)
    errors[order] = target[order].astype(numpy.float64) - goals[order] + numpy.eye(rows)
    if width <= coupling.together:
        assert numpy.array_equal(goals, target)
    # Blocks of A by groups: what is left behind those before, of which rows side by side take the diagonal.
    expected, done = 0.0, numpy.empty(0, int)
    for group in reversed(groups):
        behind = numpy.linalg.inv(damped[numpy.ix_(done, done)]) if len(done) else numpy.zeros((0, 0))
        across = damped[numpy.ix_(group, done)]
        expected += (damped[numpy.ix_(group, group)] - across @ behind @ across.T).trace()
        done = numpy.concatenate([group, done])
    # the factor is found with groups in the order of encoding: those behind are still free
    assert numpy.trace(damped @ errors @ errors.T) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_matrix_loses_less_where_its_rows_are_coupled(name: str, parts: int) -> None:
    random, one = numpy.random.default_rng(2), BY_NAME[name]
    blocks = information(parts, 64 // parts)
    mixing = random.normal(size=(256, 256)) / 16
    metric = Metric.of(mixing @ mixing.T + 0.1 * numpy.eye(256), group=compensation.columns_together(one))
    target = random.normal(size=(64, 256)).astype(numpy.float32)

    def encode(rows: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        made = compensation.encode(one, numpy.ascontiguousarray(rows), metric)
        return made, kernels.decode(one.id, made, *rows.shape)

    def loss(values: numpy.ndarray) -> float:
        errors = (target - values).astype(numpy.float64)
        return float((coupled(blocks, errors @ metric.hessian) * errors).sum())

    goals, made = Coupling.of(blocks, 0.2).goals(target, encode)
    assert numpy.array_equal(encode(goals)[0], made)  # rows are independent, given what they are encoded for
    assert loss(kernels.decode(one.id, made, *target.shape)) < 0.8 * loss(encode(target)[1])


def test_rows_that_do_not_mind_each_other_stay_what_they_are() -> None:
    target = numpy.random.default_rng(3).normal(size=(48, 32)).astype(numpy.float32)
    blocks = numpy.diag(numpy.arange(48) + 1.0)[None]
    goals, _ = Coupling.of(blocks, 0.2).goals(target, lambda rows: (numpy.zeros((len(rows), 1), numpy.uint8), rows * 0))
    assert numpy.array_equal(goals, target)


def test_a_matrix_whose_outputs_nothing_depends_on() -> None:
    target = numpy.ones((32, 32), numpy.float32)
    goals, _ = Coupling.of(numpy.zeros((2, 16, 16), numpy.float32), 0.2).goals(
        target, lambda rows: (numpy.zeros((len(rows), 1), numpy.uint8), rows * 0)
    )
    assert numpy.array_equal(goals, target)


def test_rows_are_coupled_where_one_half_of_a_text_serves_the_other() -> None:
    random = numpy.random.default_rng(4)
    same, unlike = information(2, 24, 5), information(2, 24, 6)
    found = Coupling.chosen(numpy.stack([same, same * 1.1]))
    assert found is not None and found.left(same.astype(numpy.float64)) < 0.8
    assert Coupling.chosen(numpy.stack([same, unlike])) is None
    assert Coupling.chosen(numpy.stack([same, 0 * same])) is None
    free = random.normal(size=(2, 2, 400, 24)).astype(numpy.float32)
    assert Coupling.chosen(free.transpose(0, 1, 3, 2) @ free) is None  # nothing but the noise of few gradients


def test_a_row_makes_up_for_that_of_another_matrix() -> None:
    """With errors that are free otherwise, E2 = e - N E1, a pair costs its first row's share and the second pivot."""
    both = information(50, 2, 7)
    factor = pulled(numpy.stack([both, both]))
    assert factor is not None
    assert numpy.allclose(factor, both[:, 0, 1] / both[:, 1, 1], rtol=1e-5)
    first, free = numpy.random.default_rng(8).normal(size=(2, 50, 300))
    second = free - factor[:, None] * first
    cost = (both[:, 0, 0] * (first**2).sum(1) + both[:, 1, 1] * (second**2).sum(1)).sum()
    cost += (2 * both[:, 0, 1] * (first * second).sum(1)).sum()
    pivots = both[:, 0, 0] - both[:, 0, 1] ** 2 / both[:, 1, 1]
    assert cost == pytest.approx((pivots * (first**2).sum(1) + both[:, 1, 1] * (free**2).sum(1)).sum(), rel=1e-4)


def test_rows_of_two_matrices_are_coupled_where_one_half_of_a_text_serves_the_other() -> None:
    same, unlike = information(50, 2, 9), information(50, 2, 10)
    unlike[:, 0, 1] = unlike[:, 1, 0] = -same[:, 0, 1]
    assert pulled(numpy.stack([same, 1.1 * same])) is not None
    assert pulled(numpy.stack([same, unlike])) is None
    assert pulled(numpy.stack([same, 0 * same])) is None
