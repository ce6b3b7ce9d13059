"""Ranges of observers, QSUR, rank correlation, guesses of languages."""

from __future__ import annotations

import numpy
import pytest

from quantcli.calibration import observers, utilisation
from quantcli.evaluate import languages
from quantcli.report import heat
from quantcli.report.heat import Cell

ROWS = numpy.random.default_rng(7).standard_t(4, (64, 512)).astype(numpy.float32)
IMPORTANCE = numpy.random.default_rng(8).lognormal(0, 1, 512).astype(numpy.float32)


def test_searches_lose_least_of_what_they_minimise() -> None:
    even = numpy.ones_like(IMPORTANCE)
    for weights, best in ((even, "mse"), (IMPORTANCE, "weighted")):
        lost = {
            name: observers.loss(ROWS, find(ROWS, IMPORTANCE), weights).sum()
            for name, find in observers.OBSERVERS.items()
        }
        assert min(lost, key=lost.__getitem__) == best
        assert max(lost, key=lost.__getitem__) == "min-max"


def test_an_outlier_moves_the_largest_magnitude_alone() -> None:
    rows = numpy.tile(numpy.linspace(-1, 1, 4096, dtype=numpy.float32), (2, 1))
    rows[1, 0] = -100
    for name, find in observers.OBSERVERS.items():
        ranges = find(rows, numpy.ones(4096, numpy.float32))
        assert ranges[0] == pytest.approx(1, abs=0.3), name
        if name in ("percentile", "analytic"):
            assert ranges[1] < 3, name
    assert observers.min_max(rows, IMPORTANCE)[1] == 100
    assert observers.entropy(rows, IMPORTANCE)[1] <= 100


def test_a_grid_of_fifteen_levels() -> None:
    made = observers.rounded(ROWS, observers.min_max(ROWS, IMPORTANCE))
    assert all(len(numpy.unique(row)) <= 15 for row in made)
    assert numpy.array_equal(observers.rounded(made, numpy.abs(made).max(axis=1)), made)
    zero = numpy.zeros((1, 8), numpy.float32)
    assert not observers.rounded(zero, observers.min_max(zero, zero[0])).any()


def test_utilisation_is_largest_for_a_turned_white_matrix() -> None:
    random = numpy.random.default_rng(1)
    white = random.standard_normal((4000, 32))
    loud = white * numpy.array([30.0] + [1.0] * 31)
    turn, _ = numpy.linalg.qr(random.standard_normal((32, 32)))
    used = [utilisation.per_dimension(each.astype(numpy.float32))[0] for each in (loud, loud @ turn, white @ turn)]
    assert used[0] < used[1] < used[2]
    # of d equal eigenvalues and q_1 = (1, 1, ...) / sqrt(d): sqrt(pi d) / (2 Gamma(d/2 + 1)^(1/d)) = 1.926, the most
    assert used[2] < 1.93
    ragged = utilisation.per_dimension(random.standard_normal((100, 70)).astype(numpy.float32))
    assert ragged.shape == (2,) and numpy.isfinite(ragged).all()
    assert numpy.isfinite(utilisation.per_dimension(numpy.zeros((100, 32), numpy.float32))).all()


def test_rank_correlation() -> None:
    assert utilisation.rank_correlation([1, 2, 3, 4], [10, 100, 1000, 1e9]) == pytest.approx(1)
    assert utilisation.rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert utilisation.rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)
    assert utilisation.rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert utilisation.rank_correlation([1, 2], [1, 2]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was the best of times, and it is not what this was for", "English"),
        ("Der Hund und die Katze sind mit dem Ball auf der Wiese", "German"),
        ("Le chat est dans une maison avec des enfants et du pain", "French"),
        ("Быстрая лиса прыгает через ленивую собаку", "in Cyrillic letters"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたか", "Japanese"),
        ("今天天气很好我们去公园散步好吗朋友们都来了", "Chinese"),
        ("for (i = 0; i < n; i++) { sum[i] += f(x[i]) * w; }", languages.CODE),
        ("Lorem ipsum dolor sit amet consectetur", "other in Latin letters"),
        ("12 34 56", languages.OTHER),
        ("", languages.OTHER),
    ],
)
def test_languages_are_guessed(text: str, expected: str) -> None:
    assert languages.guess(text) == expected


def test_a_map_has_a_row_per_layer() -> None:
    cells = {
        name: Cell(name[-8:], "<b>", weight, 'a "title"')
        for name, weight in (
            ("token_embd.weight", 1.0),
            ("blk.0.attn_q.weight", 4.0),
            ("blk.2.ffn_up.weight", None),
            ("blk.2.attn_q.weight", 0.0),
        )
    }
    text = heat.table(cells)
    assert text.count("<table") == 2 and text.count("<tr>") == 5 and text.count("<td>–</td>") == 1
    assert "<b>" not in text and "--p:62%" in text and "--p:0%" in text and "&quot;title&quot;" in text
    assert heat.place_of("mtp.blk.3.attn_q.weight") == (3, "attn_q") and heat.place_of("output.weight") == (
        None,
        "output",
    )
