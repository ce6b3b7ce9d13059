"""Mutants of files: of their bytes, of JSON values, and of what a GGUF file says (metadata, tensors).

Every mutator takes a `random.Random`, so that (seed, number) names a mutant for ever.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

INTEGERS = (
    0,
    1,
    2,
    3,
    7,
    31,
    255,
    256,
    4095,
    65535,
    65536,
    2**22,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, 3.5e38, float("inf"), float("-inf"), float("nan"), 0.5, 1e-7)
TEXTS = ("", "x", "a" * 5000, "\x1b[31m", "\u202e", "\ufffd", "../../x", "{{ 1/0 }}", "none", "yarn", "linear", "🦆")
DEEP = 3000  # nested lists

# ---- bytes


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, interesting integers, cuts, repeats, insertions, a truncation."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        if data:
            rng.choice(BYTE_CHANGES)(data, rng)
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere, the beginning of the file more often: headers are short."""
    return rng.randrange(min(len(data), rng.choice((64, 1024, 1 << 16, len(data)))))


def _flip(data: bytearray, rng: random.Random) -> None:
    data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _integer(data: bytearray, rng: random.Random) -> None:
    place, width = _place(data, rng), rng.choice((1, 2, 4, 8))
    data[place : place + width] = (rng.choice(INTEGERS) % 256**width).to_bytes(width, "little")


def _cut(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 4, 8, 64))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = data[place : place + rng.choice((1, 8, 100))]


def _insert(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice((1, 4, 30)))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[_place(data, rng) :]


BYTE_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _integer,
    _cut,
    _repeat,
    _insert,
    _truncate,
)

# ---- JSON

Json = object


def mutate_json(raw: bytes, rng: random.Random) -> bytes:
    """One to three values replaced, removed or moved; now and then the bytes themselves."""
    if rng.random() < 0.15:
        return mutate_bytes(raw, rng)
    holder = [json.loads(raw)]
    for _ in range(rng.randint(1, 3)):
        _change_json(holder, rng)
    try:
        return json.dumps(holder[0]).encode()
    except (RecursionError, ValueError):
        return b"[" * DEEP


def _change_json(holder: list[Json], rng: random.Random) -> None:
    places = list(_places(holder))
    container, key = rng.choice(places)
    value = container[key]  # type: ignore[index]  # a place is a key of its container
    choice = rng.randrange(8)
    if choice == 0 and isinstance(container, dict):
        del container[key]
    elif choice == 1:
        other, name = rng.choice(places)
        container[key] = copy.deepcopy(other[name])  # type: ignore[index]
    elif choice == 2 and isinstance(container, dict):
        container[rng.choice(TEXTS) or "y"] = value
    elif choice == 3:
        container[key] = [value]  # type: ignore[index]
    else:
        container[key] = _odd_json(value, rng)  # type: ignore[index]


def _places(value: Json) -> list[tuple[object, object]]:
    """Some (container, key) of a document: large tables are sampled at their ends."""
    found: list[tuple[object, object]] = []
    waiting = [value]
    while waiting and len(found) < 4000:
        one = waiting.pop()
        if isinstance(one, dict):
            keys = list(one)
            keys = keys if len(keys) < 60 else keys[:30] + keys[-10:]
        elif isinstance(one, list):
            keys = list(range(len(one))) if len(one) < 60 else [*range(30), *range(len(one) - 10, len(one))]
        else:
            continue
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def _odd_json(value: Json, rng: random.Random) -> Json:
    if isinstance(value, bool):
        return rng.choice((not value, 1, "true", None))
    if isinstance(value, int) and rng.random() < 0.6:
        return rng.choice(
            (value + 1, value - 1, -value, value * 2, value // 2, 0, *INTEGERS, -1, float(value), str(value))
        )
    if isinstance(value, float) and rng.random() < 0.6:
        return rng.choice((*REALS, -value, int(value) if abs(value) < 1e18 else 0, str(value)))
    deep: Json = []
    for _ in range(400):
        deep = [deep]
    return rng.choice((None, True, False, -1, 0, 2**31, 2**70, 1e308, *TEXTS, [], {}, [1, 2], {"a": 1}, deep))


# ---- GGUF

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


@dataclass
class Entry:
    """One metadata entry: value type, element type of arrays, and plain data (an array's as a list)."""

    kind: int
    data: object
    element: int = 4


@dataclass
class Tensor:
    name: str
    shape: list[int]
    type: int
    raw: bytes


@dataclass
class Gguf:
    """A GGUF file taken apart. Arrays of more than ``LONG`` elements are kept, but not changed element by element."""

    metadata: dict[str, Entry]
    tensors: list[Tensor]
    pool: dict[str, Entry] = field(default_factory=dict)  # entries of other files that a mutant may get


def _packed(text: str) -> bytes:
    raw = text.encode(errors="surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _scalar(kind: int, value: object) -> bytes:
    """``value`` as the value type says, wrapped or cut where it does not fit."""
    if kind == STRING:
        return _packed(str(value))
    form = SCALARS[kind]
    number = value if isinstance(value, (int, float)) else 0
    if kind == 7:
        return struct.pack(form, bool(number))
    if kind in (6, 12):
        try:
            return struct.pack(form, float(number))
        except OverflowError:
            return struct.pack(form, float("inf"))
    width = struct.calcsize(form)
    whole = int(number) if number == number and abs(number) != float("inf") else 0
    return (whole % 256**width).to_bytes(width, "little")


def encode_gguf(file: Gguf, alignment: int = 32) -> bytes:
    """The bytes of what ``file`` says, checked for nothing."""
    pieces = [b"GGUF", struct.pack("<Iqq", 3, len(file.tensors), len(file.metadata))]
    for key, entry in file.metadata.items():
        pieces.append(_packed(key) + struct.pack("<i", entry.kind))
        if entry.kind == ARRAY:
            items = entry.data if isinstance(entry.data, list) else [entry.data]
            pieces.append(struct.pack("<iQ", entry.element, len(items)))
            pieces += [_scalar(entry.element, item) for item in items]
        else:
            pieces.append(_scalar(entry.kind, entry.data))
    offset, data = 0, []
    for tensor in file.tensors:
        pieces.append(_packed(tensor.name) + struct.pack("<I", len(tensor.shape)))
        pieces += [struct.pack("<Q", extent % 2**64) for extent in tensor.shape]
        pieces.append(struct.pack("<iQ", tensor.type, offset))
        padded = tensor.raw + bytes(-len(tensor.raw) % alignment)
        offset += len(padded)
        data.append(padded)
    head = b"".join(pieces)
    return b"".join([head, bytes(-len(head) % alignment), *data])


def mutate_gguf(file: Gguf, rng: random.Random) -> bytes:
    """One to three changes of metadata or tensors; now and then of the bytes."""
    changed = Gguf(dict(file.metadata), [copy.copy(tensor) for tensor in file.tensors], file.pool)
    for _ in range(rng.randint(1, 3)):
        (_change_entry if rng.random() < 0.6 else _change_tensor)(changed, rng)
    raw = encode_gguf(changed)
    return mutate_bytes(raw, rng) if rng.random() < 0.05 else raw


def _change_entry(file: Gguf, rng: random.Random) -> None:
    key = rng.choice(list(file.metadata)) if file.metadata else "general.architecture"
    entry = file.metadata.get(key, Entry(STRING, "llama"))
    choice = rng.randrange(7)
    if choice == 0:
        file.metadata.pop(key, None)
    elif choice == 1 and file.pool:
        other = rng.choice(list(file.pool))
        file.metadata[other] = file.pool[other]
    elif choice == 2:
        items = entry.data if isinstance(entry.data, list) else [entry.data] * rng.choice((0, 1, 2, 64))
        element = entry.element if entry.kind == ARRAY else entry.kind
        file.metadata[key] = Entry(ARRAY, items, element)
    elif choice == 3 and isinstance(entry.data, list):
        file.metadata[key] = Entry(ARRAY, _odd_list(entry.data, rng), entry.element)
    elif choice == 4:
        file.metadata[key] = Entry(
            rng.choice((*SCALARS, STRING)), entry.data if not isinstance(entry.data, list) else 1
        )
    else:
        file.metadata[key] = Entry(entry.kind if entry.kind != ARRAY else 4, _odd_scalar(entry, rng))


def _odd_list(items: list[object], rng: random.Random) -> list[object]:
    changed = list(items)
    if changed and rng.random() < 0.7:
        place = rng.randrange(len(changed))
        text = isinstance(changed[place], str)
        changed[place] = rng.choice(TEXTS) if text else rng.choice((*INTEGERS, *REALS, -1))
        return changed
    return rng.choice((changed[: len(changed) // 2], changed + changed[:3], []))


def _odd_scalar(entry: Entry, rng: random.Random) -> object:
    if entry.kind == STRING:
        return rng.choice(TEXTS)
    if entry.kind in (6, 12):
        return rng.choice(REALS)
    near = int(entry.data) if isinstance(entry.data, (int, float)) and entry.data == entry.data else 0
    return rng.choice((near + 1, near - 1, near * 2, near // 2, *INTEGERS))


def _change_tensor(file: Gguf, rng: random.Random) -> None:
    if not file.tensors:
        return
    place = rng.randrange(len(file.tensors))
    tensor = file.tensors[place]
    choice = rng.randrange(7)
    if choice == 0:
        del file.tensors[place]
    elif choice == 1:
        tensor.name = rng.choice(file.tensors).name
    elif choice == 2:
        tensor.name = rng.choice(
            (tensor.name + "x", tensor.name.replace("weight", "bias"), tensor.name.replace("blk.0", "blk.9"))
        )
    elif choice == 3:
        _reshape(tensor, rng)
    elif choice == 4:
        other = rng.choice(file.tensors)
        tensor.shape, tensor.type, tensor.raw = list(other.shape), other.type, other.raw
    elif choice == 5:
        tensor.type = rng.choice((0, 1, 2, 8, 12, 14, 16, 24, 26, 28, 30, 39, 99))
    else:
        tensor.raw = mutate_bytes(tensor.raw, rng) if rng.random() < 0.5 else b"\xff" * len(tensor.raw)


def _reshape(tensor: Tensor, rng: random.Random) -> None:
    """Another shape, with as much data as it needs where that is little."""
    shape = list(tensor.shape) or [1]
    bits = 8 * len(tensor.raw) / max(1, _count(shape))
    place = rng.randrange(len(shape))
    choice = rng.randrange(5)
    if choice == 0:
        shape.reverse()
    elif choice == 1:
        shape = [_count(shape)]
    elif choice == 2:
        shape.append(1)
    else:
        shape[place] = rng.choice(
            (1, 2, shape[place] // 2, shape[place] * 2, shape[place] + 1, shape[place] - 1, 0, 2**31)
        )
    needed = int(_count(shape) * bits / 8)
    if 0 <= needed <= 1 << 22:
        tensor.raw = (tensor.raw * (needed // max(1, len(tensor.raw)) + 1))[:needed]
    tensor.shape = shape


def _count(shape: list[int]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
