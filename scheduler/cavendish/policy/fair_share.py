"""Pure: which ids go into a batch, max-min fair between producers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest

from cavendish.model import Candidate


def fair_share(candidates: Iterable[Candidate], size: int, now: float) -> list[Candidate]:
    """At most `size` candidates: first those due at `now`, then those due next.

    The due ones are taken one of each producer in turn. So every producer gets what it wants up to
    an equal share, and the rest goes to those who want more. The ids due next fill the batch, since
    a call costs the same with one id or with many.
    """
    due: dict[str, list[Candidate]] = defaultdict(list)
    early = []
    for one in candidates:
        due[one.producer].append(one) if one.due <= now else early.append(one)
    for members in due.values():
        members.sort(key=lambda one: one.due)
    in_turns = [one for turn in zip_longest(*due.values()) for one in turn if one is not None]
    return (in_turns + sorted(early, key=lambda one: one.due))[:size]
