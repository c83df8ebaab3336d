"""Pure.

Whose ids go into a batch. Max-min fair between producers, and the ids next in turn fill what is
left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest

from cavendish.model import Candidate


def fair_share(candidates: Iterable[Candidate], size: int, now: float) -> list[Candidate]:
    """At most `size` candidates: due ones first, one of each producer in turn, then those due next.

    Taking in turns gives every producer what it wants up to an equal share, and the rest to those
    who want more. The spare slots of a batch cost nothing, since a call costs the same with one id
    or with all of them.
    """
    due: dict[str, list[Candidate]] = defaultdict(list)
    early = []
    for one in candidates:
        due[one.producer].append(one) if one.due <= now else early.append(one)
    for members in due.values():
        members.sort(key=lambda one: one.due)
    in_turns = [one for turn in zip_longest(*due.values()) for one in turn if one is not None]
    return (in_turns + sorted(early, key=lambda one: one.due))[:size]
