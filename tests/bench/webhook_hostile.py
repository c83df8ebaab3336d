"""What the webhook bench measures on hostile receivers.

Addresses that must not be dialled, and answers meant as bombs.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network

from webhook_measures import Row
from webhook_road import LANE, Road, forget_peak, memory

from cavendish_worker.devstack.ports import free_port

#: The one address of this machine that is allowed, and how many webhooks go there, to show that
#: calls are noticed.
ALLOWED, CONTROL = "127.9.9.9", 5
ADDRESSES, SEED = 1000, 20261123
_NETWORKS = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/16 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 "
    "198.18.0.0/15 224.0.0.0/4 "
    "240.0.0.0/4 ::/120 fc00::/7 fe80::/10 ff00::/8 2002:7f00::/24 2001:db8::/32 64:ff9b:1::/48"
).split()
_SPELLINGS = (
    "127.0.0.1 localhost [::1] 0.0.0.0 2130706433 0x7f.1 0177.0.0.1 127.1 0x7f000001 "
    "[::ffff:127.0.0.1] [::ffff:7f00:1] "
    "[::127.0.0.1] [64:ff9b::7f00:1] 127.0.0.1. localhost. 169.254.169.254 [fd00:ec2::254] "
    "168.63.129.16"
).split()
#: Seconds of a try at an answer bomb, and how often each is tried, each time at an endpoint of its
#: own.
TIMEOUT, ATTEMPTS = 2.0, 3
BOMBS = {
    "gzip": "200 MB of gzip",
    "drip": "endless slow body",
    "headers": "100,000 headers",
    "trickle": "endless slow headers",
}


def denied() -> list[str]:
    """Hosts of URLs that stand for addresses which are not public, by themselves."""
    chance, hosts = random.Random(SEED), list(_SPELLINGS)
    networks = [ip_network(text) for text in _NETWORKS]
    while len(hosts) < ADDRESSES:
        net = chance.choice(networks)
        number = int(net.network_address) + chance.randrange(net.num_addresses)
        address = IPv4Address(number) if net.version == 4 else IPv6Address(number)
        hosts.append(f"[{address}]" if net.version == 6 else str(address))
        if net.version == 4 and chance.random() < 0.3:
            hosts.append(f"[{chance.choice(('::ffff:', '64:ff9b::'))}{address}]")
    return hosts


def names() -> dict[str, list[str]]:
    """Names that a hostile name server knows: one address of each is public, or none."""
    inner = (
        "127.0.0.1",
        "10.0.0.7",
        "169.254.169.254",
        "192.168.1.1",
        "::1",
        "fd00::7",
        "::ffff:127.0.0.1",
    )
    mixed = {
        f"mixed{number}.bench.test": ["8.8.8.8", address] for number, address in enumerate(inner)
    }
    return mixed | {
        f"private{number}.bench.test": [address] for number, address in enumerate(inner)
    }


@contextmanager
def listening(port: int) -> Iterator[list[str]]:
    """Accept connections at the loopback addresses that are not allowed; yields who came where."""
    came: list[str] = []
    with ExitStack() as ends:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                server = ends.enter_context(socket.create_server((address, port), family=family))
            except OSError:  # no IPv6 on this machine
                continue
            ends.callback(server.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_accept, args=(server, address, came), daemon=True).start()
        yield came


def _accept(server: socket.socket, address: str, came: list[str]) -> None:
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        came.append(address)
        peer.close()


def addresses(road: Road) -> list[Row]:
    """Webhooks to a thousand denied addresses.

    Each connect of the worker process is noted by its interpreter.
    """
    file, port, known = road.ground.folder / "dialled", free_port(), names()
    hosts = [*denied(), *known]
    watched = [str(file), json.dumps(known)]
    with (
        road.receiving(ALLOWED),
        listening(port) as came,
        road.worker(watched, webhook_allow=f"{ALLOWED}/32"),
    ):
        endings = [
            road.prepare(1, f"/hook{number}", f"http://{host}:{port}")[0]
            for number, host in enumerate(hosts)
        ]
        control = road.prepare(CONTROL, "/allowed/0")
        road.settle([*control, *endings])
        until = time.monotonic() + 20
        while (
            sum(road.store.statistics([LANE]).pending_by_endpoint.values())
            and time.monotonic() < until
        ):
            road.kick()
            time.sleep(0.5)
        dead, heard = road.store.closed.dead(LANE, 2 * ADDRESSES), road.arrivals()
    dialled = [json.loads(line) for line in file.read_text().splitlines()]
    wrong = [address for address in dialled if address != ALLOWED] + came
    if ALLOWED not in dialled or len(heard.at) != CONTROL:
        raise RuntimeError("the allowed address was not reached, so nothing is proven")
    buried = {delivery.task_id for delivery in dead if "not public" in delivery.outcome}
    left = {
        host: road.store.deliveries.load(LANE, [ending.delivery])[0].outcome
        for host, ending in zip(hosts, endings, strict=True)
        if ending.outcome.task.id not in buried
    }
    if not all(left.values()):
        raise RuntimeError(f"{list(left.values()).count('')} addresses were not tried")
    measured = f"{len(wrong)} of {len(hosts)}" + (f": {sorted(set(wrong))[:5]}" if wrong else "")
    row = f"{len(buried)}" + (f"; not {dict(list(left.items())[:3])}" if left else "")
    return [
        Row("addresses: TCP connections to a denied address", "0", measured, not wrong),
        Row("  of them buried at the first try as not public", "", row),
    ]


def bombs(road: Road) -> list[Row]:
    """Each bomb a few times, one call at a time, in a worker that has delivered before."""
    rows = []
    with road.worker(webhook_timeout=str(TIMEOUT)) as pid:
        warm = road.prepare(1000, "/warm/20")
        road.load(warm, 400.0)
        road.written(len(warm))
        time.sleep(1)
        plain = max(_one(road, pid, "/warm/20")[1] for _ in range(ATTEMPTS))
        rows.append(Row("answers: a plain one, KiB more memory", "", f"{plain}"))
        for kind, what in BOMBS.items():
            attempted = [_one(road, pid, f"/bomb/{kind}/{number}") for number in range(ATTEMPTS)]
            late, grown = (
                max(seconds - TIMEOUT for seconds, _, _ in attempted),
                max(kib for _, kib, _ in attempted),
            )
            said = "; ".join(dict.fromkeys(outcome for _, _, outcome in attempted))
            shown = f"{max(late, 0) * 1e3:.0f} (ended after {TIMEOUT + late:.2f} s: {said})"
            rows.append(
                Row(f"answer bomb, {what}: ms past the deadline", "<= 100", shown, late <= 0.1)
            )
            rows.append(
                Row(
                    "  KiB more memory, each try",
                    "<= 1,024",
                    ", ".join(f"{kib}" for _, kib, _ in attempted),
                    grown <= 1024,
                )
            )
    return rows


def _one(road: Road, pid: int, path: str) -> tuple[float, int, str]:
    """Seconds of the first try of one webhook, KiB that the worker's memory grew meanwhile, and
    what came of it.
    """
    (ending,) = road.prepare(1, path)
    time.sleep(0.5)
    forget_peak(pid)
    before = memory(pid, "VmRSS")
    road.settle([ending])
    road.kick()
    entry = road.log_of(ending)
    grown = memory(pid, "VmHWM") - before
    return entry["seconds"], max(grown, 0), str(entry["outcome"])[:60]
