"""The table of types in Python is the library's (csrc/types.def), and costs no import of numpy or cffi."""

from __future__ import annotations

import subprocess
import sys

import pytest

from quantcli.ggml import kernels, tensor_types

NO_KERNELS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64"}


@pytest.mark.parametrize("name", sorted(tensor_types.BY_NAME))
def test_the_library_has_the_same_block_and_bytes(name):
    tensor_type = tensor_types.by_name(name)
    found = kernels.layout(tensor_type.id)
    assert (found and found[:2]) == (None if name in NO_KERNELS else (tensor_type.block, tensor_type.bytes))


def test_the_library_has_no_other_types():
    known = {type_id for type_id in range(-2, 300) if kernels.layout(type_id) is not None}
    assert known == {tensor_type.id for name, tensor_type in tensor_types.BY_NAME.items() if name not in NO_KERNELS}


def test_the_table_imports_neither_numpy_nor_cffi():
    code = (
        "import sys; before = set(sys.modules); import quantcli.ggml.tensor_types\n"
        "print(sorted({'numpy', 'cffi'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
