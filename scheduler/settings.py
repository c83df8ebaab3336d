"""Every knob once: its environment name, unit, default and meaning. All complaints are reported together."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scheduler.addresses import Network, parse_networks
from scheduler.errors import SettingsError
from scheduler.redis_url import CLUSTER, MANY, SENTINEL, many, scheme_of

PREFIX = "CAVENDISH_"

Reader = Callable[[str], Any]


def _number(low: float, high: float) -> Reader:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError(f"must lie within {low:.10g} and {high:.10g}")
        return value

    return read


def _whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"must be a whole number within {low} and {high}")
        return value

    return read


def _one_of(*words: str) -> Reader:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text.lower()

    return read


def _url(*schemes: str) -> Reader:
    def read(text: str) -> str:
        complaint = f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}"
        try:
            parts = urlsplit(text)
            sound = parts.port != 0
        except ValueError:
            raise ValueError(complaint) from None
        web = parts.scheme in ("http", "https")
        if parts.scheme not in schemes or not sound or not (parts.hostname or (parts.path and not web)):
            raise ValueError(complaint)
        if web and (parts.query or parts.fragment):
            raise ValueError("must be a URL without ? and #")
        return text.rstrip("/") if web else text

    return read


def _redis(*schemes: str) -> Reader:
    """A URL of one Redis or of several; `redis_url` has the spellings."""
    one = _url(*schemes)

    def read(text: str) -> str:
        if scheme_of(text) in schemes and scheme_of(text) in MANY:
            many(text)
            return text
        return str(one(text))

    return read


def _ports(text: str) -> tuple[range, ...]:
    try:
        ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
        found = tuple(range(pair[0], pair[-1] + 1) for pair in ends) if max(map(len, ends)) <= 2 else ()
    except ValueError:
        found = ()
    if not found or any(len(each) == 0 or each.start < 1 or each.stop > 65536 for each in found):
        raise ValueError("must be ports and ranges of ports such as 443,8000-8999")
    return found


def _lifetimes(text: str) -> tuple[tuple[str, float], ...]:
    """`86400`, or `nano-banana=86400,veo=3600`; the name `*` stands for any service."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, seconds = part.rpartition("=")
        try:
            found[name.strip() or "*"] = _number(60, 3650 * 86400)(seconds)
        except ValueError:
            raise ValueError("must be seconds (60 and up), or service=seconds pairs separated by commas") from None
    return tuple(found.items())


def _sealing_keys(text: str) -> tuple[str, ...]:
    keys = tuple(part.strip() for part in text.split(","))
    for key in keys:
        try:
            sound = len(base64.urlsafe_b64decode(key.encode())) == 32
        except ValueError:
            sound = False
        if not sound:
            raise ValueError("must be the URL-safe base64 of 32 random bytes; several, the newest first, are separated by commas")
    return keys


def _endpoint(text: str) -> str:
    """A webhook URL, or the name of a registered endpoint."""
    return _url("http", "https")(text) if "://" in text else text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise ValueError(f"must be a comma separated list of CIDRs; {error}") from None


def webhook_secret_key(text: str) -> bytes:
    """The signing key inside a `whsec_…` secret: 24 to 64 bytes. Raises ValueError without showing the secret."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be 'whsec_' followed by the base64 of 24 to 64 bytes")
    return key


def _secret(text: str) -> str:
    webhook_secret_key(text)
    return text


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("must be an IP address of this machine, or 0.0.0.0 or :: for all of them") from None


def _login(text: str) -> str:
    user, _, password = text.partition(":")
    if not (user and password and text.isascii() and text.isprintable()):
        raise ValueError("must be user:password in printable ASCII")
    return text


def _knob(default: Any, read: Reader, unit: str, meaning: str, *, secret: bool = False, shown: str = "") -> Any:
    about = {"read": read, "unit": unit, "meaning": meaning, "secret": secret, "shown": shown}
    return field(default=default, repr=not secret, metadata=about)


_WEB_PORTS = "80,443,1024-65535"
_REDIS = ("redis", "rediss", "unix", "redis+socket", SENTINEL, "sentinel")
_BOOK = (*_REDIS, CLUSTER)
_BROKER = (*_REDIS, "amqp", "amqps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. Unset means the default. Secrets stay out of `repr`."""

    redis_url: str = _knob(
        "", _redis(*_BOOK), "URL", "Redis that holds the book; unset: the embedded server of `cavendish up`.", secret=True
    )
    broker_url: str = _knob("", _redis(*_BROKER), "URL", "Celery's broker; unset: the same Redis.", secret=True)
    wait_replicas: int = _knob(
        0, _whole(0, 10), "replicas", "How many replicas must have a submit or a settled state before it counts; unset: none."
    )
    wait_timeout: float = _knob(1.0, _number(0.01, 4), "s", "How long to wait for them.")
    data_dir: Path = _knob(Path(".cavendish"), Path, "folder", "Where `cavendish up` keeps the embedded server's files.")
    api_url: str = _knob("https://api.acedata.cloud", _url("http", "https"), "URL", "The remote API.", secret=True)
    api_token: str = _knob("", _token, "token", "Bearer token of the account `default`.", secret=True)
    api_tokens_file: Path | None = _knob(None, Path, "file", 'JSON object {"account": "token"} with further accounts.')
    rate: float = _knob(0.0, _number(0.01, 100_000), "calls/s", "Ceiling of the pace of an account; unset: only what is learned.")
    batch_size: int = _knob(50, _whole(1, 1000), "ids", "Most ids in one `retrieve_batch` call.")
    tick: float = _knob(0.25, _number(0.05, 60), "s", "How often beat wakes the dispatch.")
    deadline: float = _knob(
        3600.0, _number(1, 30 * 86400), "s", "Time after which an unfinished id is `expired`, unless a submit says otherwise."
    )
    last_look: float = _knob(
        60.0, _number(1, 86400), "s", "How long after its deadline an id waits for its last look while the API cannot be asked."
    )
    lease: float = _knob(75.0, _number(10, 3600), "s", "How long a claimed batch stays claimed when its worker dies.")
    connect_timeout: float = _knob(5.0, _number(0.1, 60), "s", "Longest connect to the remote API.")
    call_timeout: float = _knob(30.0, _number(0.5, 300), "s", "Longest call to the remote API, wall clock, all included.")
    answer_limit: int = _knob(16 * 2**20, _whole(1024, 2**30), "bytes", "Largest answer of the remote API that is read.")
    absent_grace: float = _knob(
        15.0, _number(0, 86400), "s", "An id missing from answers this soon after its submit is only late."
    )
    absent_tries: int = _knob(3, _whole(1, 1000), "looks", "Confirmed absences before an id is `unknown` ...")
    absent_over: float = _knob(60.0, _number(0, 86400), "s", "... which must span at least this time.")
    retention: float = _knob(
        7 * 86400.0, _number(60, 3650 * 86400), "s", "How long an ended id and its record stay in the book once all is paid."
    )
    dead_retention: float = _knob(
        30 * 86400.0, _number(60, 3650 * 86400), "s", "How long dead letters and what they announce are kept."
    )
    events_kept: int = _knob(10_000, _whole(100, 10_000_000), "events", "Length of the stream of events of each lane.")
    webhook_secret: str = _knob(
        "", _secret, "whsec_…", "Signs every webhook; `cavendish up` makes one where none is set.", secret=True
    )
    webhook_allow: tuple[Network, ...] = _knob(
        (), _networks, "CIDRs", "Addresses that webhooks may reach although they are not public."
    )
    webhook_ports: tuple[range, ...] = _knob(
        _ports(_WEB_PORTS), _ports, "ports", "Ports that webhooks may reach.", shown=_WEB_PORTS
    )
    webhook_calls: int = _knob(400, _whole(1, 10_000), "calls", "Webhook calls that one worker process has in flight at most.")
    webhook_calls_per_endpoint: int = _knob(100, _whole(1, 10_000), "calls", "How many of them may go to one endpoint.")
    webhook_disable_after: float = _knob(
        5 * 86400.0, _number(60, 3650 * 86400), "s", "An endpoint that fails for so long without a single success is disabled."
    )
    webhook_origin: str = _knob(
        "cavendish", _token, "name", "Who we are when an endpoint is asked for its consent (`WebHook-Request-Origin`)."
    )
    egress_proxy: str = _knob(
        "", _url("http", "https"), "URL", "Proxy that all webhooks go through; it then checks the addresses.", secret=True
    )
    operations_webhook: str = _knob(
        "", _endpoint, "URL or name", "Where `endpoint.disabled` is announced: a URL or a registered endpoint.", secret=True
    )
    secret_key: tuple[str, ...] = _knob(
        (), _sealing_keys, "base64", "Encrypts the secrets of registered endpoints; several keys: the newest first.", secret=True
    )
    result_ttl: tuple[tuple[str, float], ...] = _knob(
        (), _lifetimes, "s", "How long result links live at the API, or service=seconds pairs; late webhooks then say so."
    )
    webhook_timeout: float = _knob(15.0, _number(0.5, 60), "s", "Longest webhook call, wall clock, all included.")
    shards: int = _knob(1, _whole(1, 256), "shards", "Into how many parts each lane of the book is cut.")
    concurrency: int = _knob(16, _whole(5, 256), "threads", "Celery tasks that one worker process runs at a time.")
    shutdown_timeout: float = _knob(
        20.0, _number(1, 600), "s", "How long `cavendish up` lets its parts finish before it ends them."
    )
    flower_port: int = _knob(5555, _whole(0, 65535), "port", "Flower's port; 0: any free one.")
    flower_address: str = _knob("127.0.0.1", _address, "address", "Where Flower listens; beyond this machine only with a login.")
    flower_basic_auth: str = _knob(
        "", _login, "user:password", "Login for Flower, which also allows its buttons; unset: it only shows.", secret=True
    )
    log_format: str = _knob("console", _one_of("console", "json"), "console | json", "Shape of the log lines.")
    log_level: str = _knob("info", _one_of("debug", "info", "warning", "error"), "level", "Least level that is logged.")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises SettingsError with every complaint at once, by environment name."""
        environ = os.environ if environ is None else environ
        values, complaints = {}, []
        for knob in fields(cls):
            name = env_name(knob.name)
            text = environ.get(name, "").strip()
            if not text:
                continue
            try:
                values[knob.name] = knob.metadata["read"](text)
            except ValueError as error:
                complaints.append(_complaint(name, text, error, secret=knob.metadata["secret"]))
        settings = cls(**values)
        complaints += settings._contradictions()
        if complaints:
            raise SettingsError(complaints)
        return settings

    def _contradictions(self) -> list[str]:
        found = []
        if self.lease < 2 * self.call_timeout:
            found.append(f"{PREFIX}LEASE must be at least twice {PREFIX}CALL_TIMEOUT, or batches are asked about twice.")
        if self.last_look < self.call_timeout:
            found.append(f"{PREFIX}LAST_LOOK must be at least {PREFIX}CALL_TIMEOUT, or a last look is cut short.")
        if not (self.flower_basic_auth or ip_address(self.flower_address).is_loopback):
            found.append(f"{PREFIX}FLOWER_ADDRESS lets others see what runs: set {PREFIX}FLOWER_BASIC_AUTH too.")
        try:
            self.tokens()
        except (OSError, ValueError) as error:
            found.append(f"{PREFIX}API_TOKENS_FILE cannot be used: {error}.")
        return found

    def result_lifetime(self, service: str) -> float | None:
        """Seconds after which the API forgets the results of a service, or None where nobody said."""
        said = dict(self.result_ttl)
        return said.get(service, said.get("*"))

    def tokens(self) -> dict[str, str]:
        """Bearer token by account. Raises OSError or ValueError if the file of tokens cannot be used."""
        tokens: dict[str, str] = {}
        if self.api_tokens_file is not None:
            try:
                read = json.loads(self.api_tokens_file.read_text())
            except OSError as error:
                raise OSError(f"{self.api_tokens_file}: {error.strerror}") from None
            except ValueError:
                raise ValueError(f"{self.api_tokens_file} holds no JSON") from None
            if not isinstance(read, dict) or not all(isinstance(token, str) and token for token in read.values()):
                raise ValueError(f'{self.api_tokens_file} must hold one JSON object {{"account": "token"}}')
            tokens.update({account: _token(token) for account, token in read.items()})
        if self.api_token:
            tokens["default"] = self.api_token
        return tokens


def env_name(knob: str) -> str:
    """The environment name of a field of Settings."""
    return PREFIX + knob.upper()


def _complaint(name: str, text: str, error: ValueError, *, secret: bool) -> str:
    why = str(error)
    if why.startswith(("could not convert", "invalid literal")):
        why = "must be a number"
    return f"{name} {why}" + ("." if secret else f", not {text!r}.")


def described() -> list[tuple[str, str, str, str]]:
    """Name, unit, default and meaning of every setting, as README and `deploy/env.example` show them."""
    rows = []
    for knob in fields(Settings):
        unset = knob.default in ("", (), None, 0.0)
        plain = "" if unset else f"{knob.default:.10g}" if isinstance(knob.default, float) else str(knob.default)
        rows.append((env_name(knob.name), knob.metadata["unit"], knob.metadata["shown"] or plain, knob.metadata["meaning"]))
    return rows
