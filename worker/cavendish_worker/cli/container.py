"""Checks a process that sends no heartbeat: Flower, exporter and HTTP service answer by HTTP."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

from cavendish.settings import Settings


def page_of(pid: int, settings: Settings) -> str | None:
    """The URL that says whether the process is well; None for a worker, a beat, or another."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if "flower" in words:
        given = os.environ.get
        port = _option(words, "--port") or given("FLOWER_PORT") or settings.flower_port
        address = _option(words, "--address") or given("FLOWER_ADDRESS") or settings.flower_address
        prefix = _option(words, "--url_prefix", "--url-prefix") or given("FLOWER_URL_PREFIX", "")
        path = "/".join(filter(None, (prefix.strip("/"), "healthcheck")))
        return f"http://{_here(address)}:{port}/{path}"
    if "serve" in words and "--certificate" not in words:
        return f"http://{_here(settings.http_address)}:{settings.http_port}/healthz"
    if "metrics" in words and (where := _option(words, "--serve")):
        host, _, port = where.rpartition(":")
        return f"http://{_here(host or '127.0.0.1')}:{port}/metrics"
    return None


def complaint_of(page: str, seconds: float) -> str:
    """What is wrong with the page within so many seconds; empty if it answers with 200."""
    where = urlsplit(page)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    try:
        connection.request("GET", where.path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{page} does not answer: {error}."
    finally:
        connection.close()
    return "" if status == 200 else f"{page} answers HTTP {status}."


def _option(words: list[str], *names: str) -> str:
    """The value of an option, as `--port=5555` or `--port 5555`; empty if it is not given."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(words[place + 1 : place + 2]), "")
    return ""


def _here(address: str) -> str:
    """The address to connect to, on this machine, for a process that listens on this one."""
    plain = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.strip("[]"), address.strip("[]"))  # noqa: S104 (nothing is bound)
    return f"[{plain}]" if ":" in plain else plain
