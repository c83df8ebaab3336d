"""What a stranger may say.

JSON of any shape, and bytes that only look like it. `FUZZ_CASES=50000` makes a long run.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

DEEP = "[" * 100_000 + "]" * 100_000
#: Texts of single JSON values, and of some that JSON does not know.
LEAVES = [
    *("null true false NaN Infinity -Infinity 0 -0 -1 0.0 1 100 1e308 -1e308 1e999 1e-999 1.7e9 1.7e12 2147483648".split()),
    *('"" "a" "b" "failed" "succeeded" "running" "marinating" "\\ud800" "\\udfff\\ud800" "\\u0000" "\\ufeffa" "٣" "ａ"'.split()),
    *('"2026-11-22T22:50:01Z" "9999-12-31T23:59:59-23:59" "0001-01-01" "https://x/y.png" "data:," "not_found" "99%"'.split()),
    *("9" * digits for digits in (20, 400, 4300, 4301, 100_000)),
    *("[" * depth + "]" * depth for depth in (99, 101, 330, 500, 950)),
    '"' + "水" * 3000 + '"', '"' + "x" * 200_000 + '"', '{"a":' * 300 + "1" + "}" * 300,
]  # fmt: skip
KEYS = [
    *(
        "id task_id response request success error code message detail data state status progress items count model".split()
    ),
    *(
        "finished_at created_at image_url urls output result callback_url __class__ trace_id".split()
    ),
    *("\\ud800", "\\u0000", "", " ", "é", "k" * 3000),
]
_leaves = (
    st.sampled_from(LEAVES)
    | st.floats().map(json.dumps)
    | st.integers().map(str)
    | st.text(max_size=8).map(json.dumps)
)


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=5)
    return pairs.map(_object) | st.lists(inner, max_size=4).map(
        lambda parts: f"[{','.join(parts)}]"
    )


#: JSON texts of any shape, duplicate keys included.
values = st.recursive(_leaves, _nested, max_leaves=12)
objects = st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=6).map(_object)


def _odd_bytes(text: str, oddity: str, place: float, junk: bytes) -> bytes:
    body = text.encode(errors="surrogatepass")
    at = int(len(body) * place)
    match oddity:
        case "cut":
            return body[:at]
        case "junk inside":
            return body[:at] + junk + body[at:]
        case "byte order mark":
            return b"\xef\xbb\xbf" + body
        case "gzip":
            return gzip.compress(body)
        case "deflate":
            return zlib.compress(body)[: at or None]
        case "utf-16" | "utf-32":
            return text.encode(oddity, errors="surrogatepass")
    return body


_ODDITIES = ["cut", "junk inside", "byte order mark", "gzip", "deflate", "utf-16", "utf-32"]


def bodies(texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Texts as bytes; one in a few is cut, mixed with junk, packed, or in another encoding."""
    oddities = st.sampled_from(["", "", "", "", "", *_ODDITIES])
    places, junk = (
        st.floats(0, 1, exclude_max=True),
        st.binary(max_size=6) | st.sampled_from([b"\xff", b"\x00", b"\xed\xa0\x80"]),
    )
    return st.builds(_odd_bytes, texts, oddities, places, junk)


def cases(number: int) -> settings:
    """So many cases, the same in every run, unless FUZZ_CASES asks for more.

    Then others each time.
    """
    wanted = int(os.environ.get("FUZZ_CASES", "0"))
    return settings(
        max_examples=max(wanted, number),
        derandomize=not wanted,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
