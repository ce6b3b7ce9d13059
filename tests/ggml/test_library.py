"""Choosing an instruction set, and a broken install."""

from __future__ import annotations

import platform
from functools import cache

import numpy as np
import pytest

from quantcli.errors import BrokenInstall, UnsupportedInstructionSet
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME


@pytest.mark.parametrize("isa", [name for name, supported in kernels.instruction_sets() if supported])
def test_the_environment_forces_an_instruction_set(monkeypatch, isa):
    monkeypatch.setenv("QUANTCLI_SIMD", isa.upper())
    assert kernels.isa() == isa


def test_the_empty_environment_means_the_best(monkeypatch):
    monkeypatch.delenv("QUANTCLI_SIMD", raising=False)
    best = kernels.isa()
    monkeypatch.setenv("QUANTCLI_SIMD", "")
    assert kernels.isa() == best != "emu16"


@pytest.mark.parametrize("name", ["sse9", "neon" if platform.machine() == "x86_64" else "avx2"])
def test_an_instruction_set_that_is_not_here_is_an_error(monkeypatch, name):
    monkeypatch.setenv("QUANTCLI_SIMD", name)
    for call in (kernels.isa, lambda: kernels.encode(BY_NAME["Q8_0"].id, np.ones((1, 32), np.float32))):
        with pytest.raises(UnsupportedInstructionSet, match=name) as caught:
            call()
        assert "scalar" in caught.value.hint


def test_a_library_of_another_version_or_none_is_a_broken_install(monkeypatch, tmp_path):
    loaded = kernels.library
    monkeypatch.setattr(kernels, "library", cache(loaded.__wrapped__))
    monkeypatch.setattr(kernels, "ABI", 999)
    with pytest.raises(BrokenInstall, match="interface"):
        kernels.can_encode(0)
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    with pytest.raises(BrokenInstall, match="cannot be loaded"):
        kernels.can_encode(0)
