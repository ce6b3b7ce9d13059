"""Room for weights: whole, apart from each other, and given back."""

from __future__ import annotations

import gc
import weakref

import numpy
import pytest

from quantcli.runner import pages

SIZES = [(1, 1), (3, 100), (256, 1152), (2048, 1152), (1, pages.CHUNK // 2), (2, pages.CHUNK // 2), (5, pages.CHUNK)]


def test_rooms_have_their_shape_and_do_not_overlap() -> None:
    rooms = [pages.room(rows, width) for rows, width in SIZES * 2]
    for number, (room, shape) in enumerate(zip(rooms, SIZES * 2, strict=True)):
        assert room.shape == shape and room.dtype == numpy.uint8 and room.flags.c_contiguous
        room[[0, -1]] = number + 1
    for number, room in enumerate(rooms):
        assert (room[[0, -1]] == number + 1).all()


@pytest.mark.parametrize("shape", [(0, 18), (18, 0)])
def test_nothing_needs_no_room(shape: tuple[int, int]) -> None:
    assert pages.room(*shape).shape == shape


def test_chunks_go_back_with_their_last_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_chunk", None)  # models of other tests may lie in the last one
    first, second = pages.room(4, 1000), pages.room(4, 1000)
    assert isinstance(first.base, numpy.ndarray)
    chunk = weakref.ref(first.base)
    del first
    gc.collect()
    assert chunk() is not None and second.base is chunk()
    del second
    gc.collect()
    assert chunk() is None
