"""Bytes that somebody else wrote, or that a disk spoiled: a right file with parts cut, doubled, swapped or replaced."""

import json
from typing import Any

from hypothesis import strategies as st

NASTY = (
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"\n", "\u2028".encode(), "\u202e".encode(), b"{", b"}", b"[" * 3000, b"{\"a\":" * 3000, b"\"", b"\\ud800",
    b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-1", b"true", b"[]", b"{}", b"\"\"", b": ", b"- ", b"&a [*a, *a]", b"<<: *a", b"!!python/object/apply:os.system [id]",
    b"../../etc/passwd", b"/dev/zero", b"%s%n", b"|", b"#",
)  # fmt: skip
"""Pieces that parsers stumble over."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 2**70, 10**400, 1.5, "", "\x00", "\u2028", "../x", "a" * 3000, [], {}, [[]], {"a": None}, [None] * 50,
)  # fmt: skip
"""Values that stand where another type or range belongs."""


@st.composite
def mangled(draw: st.DrawFn, sample: bytes) -> bytes:
    """`sample` with one to four changes."""
    data = sample
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 3, 20, 200, 10_000))))
        piece = draw(st.sampled_from(NASTY) | st.binary(max_size=6) | st.just(data[start:end] * 2))
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def mistyped(draw: st.DrawFn, sample: bytes) -> bytes:
    """A JSON document like `sample` in which one value, anywhere, is another one, or a key is missing or strange."""
    tree = json.loads(sample)
    places = list(_places(tree))
    holder, key = draw(st.sampled_from(places))
    change = draw(st.sampled_from(("value", "value", "value", "missing", "strange")))
    if change == "missing":
        del holder[key]
    elif change == "strange" and isinstance(holder, dict):
        holder[draw(st.sampled_from(("", "\x00", "strange", "__class__")))] = holder[key]
    else:
        holder[key] = draw(st.sampled_from(VALUES))
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    """Every container in `tree` with each of its keys."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])
