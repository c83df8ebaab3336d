"""Workers and beats: are they alive, is each queue consumed, do their clocks and versions agree?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cavendish.store.fleet import Member
from cavendish.task_names import QUEUES
from cavendish_worker.doctor.finding import Finding, ill, skipped, well
from cavendish_worker.doctor.redis_server import APART


def findings(living: Sequence[Member]) -> list[Finding]:
    """What the heartbeats show."""
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
        return ill("worker", "0 alive: nothing is polled, nothing is delivered", _start("worker"))
    return well("worker", f"{len(workers)} alive")


def _beats(beats: Sequence[Member]) -> Finding:
    if not beats:
        return ill("beat", "0 alive: nothing makes the workers poll", _start("beat"))
    advice = "Run two, on two machines: any number may run, and each tick is taken once."
    return well("beat", f"{len(beats)} alive", advice if len(beats) == 1 else "")


def _start(role: str) -> str:
    return f"Start one: celery -A cavendish_worker {role}, or `cavendish up`."


def _queues(workers: Sequence[Member]) -> list[Finding]:
    """Each Celery task has a queue of its own, and `-Q` limits a worker to some of them."""
    if not workers:
        return []
    taken = {queue for member in workers for queue in member.queues or ()}
    untaken = [queue for queue in QUEUES if queue not in taken]
    silent = [member.name for member in workers if member.queues is None]
    if untaken and silent:
        why = f"{silent[0]} is of an older version, and does not report its queues"
        return [skipped("queues", why)]
    if not untaken:
        return [well("queues", f"all {len(QUEUES)} have workers")]
    advice = "Start a worker without -Q, which takes from all, or one with: -Q "
    return [ill(f"queue {name}", "no worker takes from it", advice + name) for name in untaken]


def _clocks(living: Sequence[Member]) -> list[Finding]:
    advice = (
        "Set the clock of its machine by NTP: tracking uses the clock of Redis, "
        "but logs and certificates do not."
    )
    ahead = {member.name: member.ahead or 0.0 for member in living}
    return [
        ill(
            f"clock of {name}",
            f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} Redis",
            advice,
        )
        for name, seconds in ahead.items()
        if abs(seconds) > APART
    ]


def _versions(living: Sequence[Member]) -> list[Finding]:
    here = version("cavendish")
    others = [f"{each.name} {each.version}" for each in living if each.version != here]
    if not others:
        return []
    advice = "Fine during an upgrade; afterwards restart the older ones."
    return [well("versions", f"here {here}, but {', '.join(others)}", advice)]
