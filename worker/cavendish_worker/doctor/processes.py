"""Workers and beats.

Are they alive, does somebody take from each queue, and do their clocks and versions agree?
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cavendish.store.fleet import Member
from cavendish.task_names import QUEUES
from cavendish_worker.doctor.finding import Finding, ill, skipped, well
from cavendish_worker.doctor.redis_server import APART


def findings(living: Sequence[Member]) -> list[Finding]:
    """Everything that the heartbeats tell."""
    workers = [member for member in living if member.role == "worker"]
    beats = [member for member in living if member.role == "beat"]
    return [
        _workers(workers),
        _beats(beats),
        *_queues(workers),
        *_clocks(living),
        *_versions(living),
    ]


def _workers(workers: Sequence[Member]) -> Finding:
    if not workers:
        return ill("worker", "0 alive: nobody asks, nobody delivers", _start("worker"))
    return well("worker", f"{len(workers)} alive")


def _beats(beats: Sequence[Member]) -> Finding:
    if not beats:
        return ill("beat", "0 alive: nothing makes the workers ask", _start("beat"))
    advice = (
        ""
        if len(beats) > 1
        else "Two on two machines make it safe: any number may run, and each tick is taken once."
    )
    return well("beat", f"{len(beats)} alive", advice)


def _start(role: str) -> str:
    return f"Start one: celery -A cavendish_worker.tasks {role}, or `cavendish up`."


def _queues(workers: Sequence[Member]) -> list[Finding]:
    """Each Celery task has a queue of its own, and a worker may be told to take from some only
    (`-Q`).
    """
    if not workers:
        return []
    taken = {queue for member in workers for queue in member.queues or ()}
    untaken = [queue for queue in QUEUES if queue not in taken]
    silent = [member.name for member in workers if member.queues is None]
    if untaken and silent:
        return [
            skipped(
                "queues", f"{silent[0]} is of an older version and does not say which it takes from"
            )
        ]
    if not untaken:
        return [well("queues", f"all {len(QUEUES)} have workers")]
    advice = "Start a worker without -Q, which takes from all, or one with: -Q {}"
    return [
        ill(f"queue {queue}", "no worker takes from it", advice.format(queue)) for queue in untaken
    ]


def _clocks(living: Sequence[Member]) -> list[Finding]:
    off = [member for member in living if member.ahead is not None and abs(member.ahead) > APART]
    advice = "Set its machine by NTP: tracking goes by the clock of Redis, but logs and certificates do not."
    return [
        ill(
            f"clock of {m.name}",
            f"{abs(m.ahead or 0):.0f} s {'ahead of' if (m.ahead or 0) > 0 else 'behind'} Redis",
            advice,
        )
        for m in off
    ]


def _versions(living: Sequence[Member]) -> list[Finding]:
    versions = {member.version for member in living} | {version("cavendish")}
    if len(versions) == 1:
        return []
    here = version("cavendish")
    others = ", ".join(
        f"{member.name} {member.version}" for member in living if member.version != here
    )
    return [
        well(
            "versions",
            f"here {here}, but {others}",
            "Fine during an upgrade; afterwards restart those that were left behind.",
        )
    ]
