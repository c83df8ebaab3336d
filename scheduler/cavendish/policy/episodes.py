"""Pure: episodes of trouble, each reported to operators once at its beginning and at its end.

Any number of processes look at the store, now and then, and each says what trouble it sees. A
trouble that comes and goes is one episode, until it has been away for a while. What is to be told
lies in the state until it was handed over, so that no process can die with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cavendish.stored_json import compact, parse, read


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of trouble needs.

    `patience`: seconds from the first look that sees it until it is told; `quiet`: seconds without
    it until it is over; `end`: the kind of webhook that tells of its end, "" for none.
    """

    patience: float = 0.0
    quiet: float = 60.0
    end: str = ""


#: A worker is looked at twice: after an outage of the store, all heartbeats are old for a moment.
RULES = {
    "account.paused": Rule(end="account.resumed"),
    "account.blind": Rule(),
    "refused.submits": Rule(quiet=0.0),
    "service.down": Rule(quiet=120.0, end="service.back"),
    "service.paused": Rule(end="service.back"),
    "worker.gone": Rule(patience=45.0, quiet=0.0),
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One trouble that a look sees: its kind, what it is about, and since when it lasts.

    `subject` names the account, the service or the worker; `details` follow it in the webhook.
    """

    kind: str
    subject: Mapping[str, str]
    since: float
    reason: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Episode:
    """A trouble that was seen. `subject` and `details` are JSON texts.

    A look saw it first at `seen_at`; `clear_since` is when a look first saw it no more (0: it
    lasts).
    """

    kind: str
    subject: str
    since: float
    reason: str
    details: str
    seen_at: float
    told: bool = False
    clear_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Announcement:
    """What operators must be told: a webhook of this kind, with this data as JSON text.

    `at`: what it tells happened then; `subject` and `since` name the episode.
    """

    kind: str
    subject: str
    since: float
    at: float
    data: str


@dataclass(frozen=True, slots=True)
class Episodes:
    """The episodes that are not over, and what is to be told of them and of earlier ones."""

    lasting: tuple[Episode, ...] = ()
    untold: tuple[Announcement, ...] = ()

    @classmethod
    def from_json(cls, text: object) -> Episodes:
        """Read what `to_json` wrote; anything unreadable is no episode."""
        known = read(cls, text)
        if known is None:
            return cls()
        texts = [text for one in known.lasting for text in (one.subject, one.details)]
        texts += [one.data for one in known.untold]
        return known if all(map(_is_object, texts)) else cls()

    def to_json(self) -> str:
        """The JSON text that is stored."""
        return compact(self)


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse(text), dict)
    except ValueError:
        return False


def looked(known: Episodes, troubles: Iterable[Trouble], now: float) -> Episodes:
    """The episodes after a look that saw these troubles, and no other ones."""
    seen = {(trouble.kind, compact(dict(trouble.subject))): trouble for trouble in troubles}
    lasting, untold = list[Episode](), list(known.untold)
    for episode in known.lasting:
        is_seen = seen.pop((episode.kind, episode.subject), None) is not None
        if is_seen:
            lasting.append(_told(replace(episode, clear_since=0.0), now, untold))
        elif episode.told:
            clear = replace(episode, clear_since=episode.clear_since or now)
            if now - clear.clear_since < _rule(clear.kind).quiet:
                lasting.append(clear)
            elif end := _rule(clear.kind).end:
                untold.append(_end(clear, end))
    for (kind, subject), trouble in seen.items():
        details = compact(dict(trouble.details))
        new = Episode(kind, subject, trouble.since, trouble.reason, details, now)
        lasting.append(_told(new, now, untold))
    return Episodes(tuple(lasting), tuple(untold))


def handed_over(known: Episodes, told: Iterable[Announcement]) -> Episodes:
    """The episodes after these announcements were handed over."""
    done = {*told}
    return replace(known, untold=tuple(one for one in known.untold if one not in done))


def _rule(kind: str) -> Rule:
    return RULES.get(kind) or Rule()


def _told(episode: Episode, now: float, untold: list[Announcement]) -> Episode:
    """The episode; operators are told of it if it has lasted for long enough."""
    if episode.told or now - episode.seen_at < _rule(episode.kind).patience:
        return episode
    data = json.loads(episode.subject) | {"reason": episode.reason} | json.loads(episode.details)
    untold.append(_announced(episode, episode.kind, episode.since, data))
    return replace(episode, told=True)


def _end(episode: Episode, kind: str) -> Announcement:
    data = json.loads(episode.subject) | {
        "was": episode.kind,
        "reason": episode.reason,
        "began_at": episode.since,
        "ended_at": episode.clear_since,
        "lasted": max(episode.clear_since - episode.since, 0.0),
    }
    return _announced(episode, kind, episode.clear_since, data)


def _announced(episode: Episode, kind: str, at: float, data: Mapping[str, Any]) -> Announcement:
    return Announcement(kind, episode.subject, episode.since, at, compact(data))
