"""Every setting once.

Its environment name, unit, default and meaning. All complaints are reported together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cavendish import env_parsers
from cavendish.errors import SettingsError
from cavendish.policy.addresses import Network
from cavendish.redis_url import CLUSTER, SENTINEL

PREFIX = "CAVENDISH_"


def _setting(
    default: Any,
    read: env_parsers.Reader,
    unit: str,
    meaning: str,
    *,
    secret: bool = False,
    shown: str = "",
) -> Any:
    about = {"read": read, "unit": unit, "meaning": meaning, "secret": secret, "shown": shown}
    return field(default=default, repr=not secret, metadata=about)


_WEB_PORTS = "80,443,1024-65535"
_REDIS = ("redis", "rediss", "unix", "redis+socket", SENTINEL, "sentinel")
_STORE = (*_REDIS, CLUSTER)
_BROKER = (*_REDIS, "amqp", "amqps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. Unset means the default. Secrets stay out of `repr`."""

    redis_url: str = _setting(
        "",
        env_parsers.redis(*_STORE),
        "URL",
        "Redis that holds the store; unset: the embedded server of `cavendish up`.",
        secret=True,
    )
    broker_url: str = _setting(
        "",
        env_parsers.redis(*_BROKER),
        "URL",
        "Celery's broker; unset: the same Redis.",
        secret=True,
    )
    wait_replicas: int = _setting(
        0,
        env_parsers.whole(0, 10),
        "replicas",
        "How many replicas must have a submit or a settled state before it counts; unset: none.",
    )
    wait_timeout: float = _setting(
        1.0, env_parsers.number(0.01, 4), "s", "How long to wait for them."
    )
    data_dir: Path = _setting(
        Path(".cavendish"),
        Path,
        "folder",
        "Where `cavendish up` keeps the embedded server's files.",
    )
    api_url: str = _setting(
        "https://api.acedata.cloud",
        env_parsers.url("http", "https"),
        "URL",
        "The remote API.",
        secret=True,
    )
    api_token: str = _setting(
        "", env_parsers.token, "token", "Bearer token of the account `default`.", secret=True
    )
    api_tokens_file: Path | None = _setting(
        None, Path, "file", 'JSON object {"account": "token"} with further accounts.'
    )
    rate: float = _setting(
        0.0,
        env_parsers.number(0.01, 100_000),
        "calls/s",
        "Ceiling of the rate limit of an account; unset: only what is learned.",
    )
    batch_size: int = _setting(
        50, env_parsers.whole(1, 1000), "ids", "Most ids in one `retrieve_batch` call."
    )
    tick: float = _setting(
        0.25, env_parsers.number(0.05, 60), "s", "How often beat wakes the dispatch."
    )
    deadline: float = _setting(
        3600.0,
        env_parsers.number(1, 30 * 86400),
        "s",
        "Time after which an unfinished id is `expired`, unless a submit says otherwise.",
    )
    last_poll: float = _setting(
        60.0,
        env_parsers.number(1, 86400),
        "s",
        "How long after its deadline an id waits for its last poll while the API cannot be asked.",
    )
    lease: float = _setting(
        75.0,
        env_parsers.number(10, 3600),
        "s",
        "How long a claimed batch stays claimed when its worker dies.",
    )
    connect_timeout: float = _setting(
        5.0, env_parsers.number(0.1, 60), "s", "Longest connect to the remote API."
    )
    call_timeout: float = _setting(
        30.0,
        env_parsers.number(0.5, 300),
        "s",
        "Longest call to the remote API, wall clock, all included.",
    )
    answer_limit: int = _setting(
        16 * 2**20,
        env_parsers.whole(1024, 2**30),
        "bytes",
        "Largest answer of the remote API that is read.",
    )
    absent_grace: float = _setting(
        15.0,
        env_parsers.number(0, 86400),
        "s",
        "An id missing from answers this soon after its submit is only late.",
    )
    absent_polls: int = _setting(
        3, env_parsers.whole(1, 1000), "polls", "Confirmed absences before an id is `unknown` ..."
    )
    absent_over: float = _setting(
        60.0, env_parsers.number(0, 86400), "s", "... which must span at least this time."
    )
    retention: float = _setting(
        7 * 86400.0,
        env_parsers.number(60, 3650 * 86400),
        "s",
        "How long an ended id and its record stay in the store once all is delivered.",
    )
    dead_retention: float = _setting(
        30 * 86400.0,
        env_parsers.number(60, 3650 * 86400),
        "s",
        "How long dead letters and what they announce are kept.",
    )
    events_kept: int = _setting(
        10_000,
        env_parsers.whole(100, 10_000_000),
        "events",
        "Length of the stream of events of each lane.",
    )
    webhook_secret: str = _setting(
        "",
        env_parsers.secret,
        "whsec_…",
        "Signs every webhook; several, the newest first, all sign; `cavendish secret new` prints one; `cavendish up` makes one.",
        secret=True,
    )
    webhook_allow: tuple[Network, ...] = _setting(
        (),
        env_parsers.networks,
        "CIDRs",
        "Addresses that webhooks may reach although they are not public.",
    )
    webhook_ports: tuple[range, ...] = _setting(
        env_parsers.ports(_WEB_PORTS),
        env_parsers.ports,
        "ports",
        "Ports that webhooks may reach; at addresses of WEBHOOK_ALLOW any port.",
        shown=_WEB_PORTS,
    )
    webhook_calls: int = _setting(
        400,
        env_parsers.whole(1, 10_000),
        "calls",
        "Webhook calls that one worker process has in flight at most.",
    )
    webhook_calls_per_endpoint: int = _setting(
        100, env_parsers.whole(1, 10_000), "calls", "How many of them may go to one endpoint."
    )
    webhook_disable_after: float = _setting(
        5 * 86400.0,
        env_parsers.number(60, 3650 * 86400),
        "s",
        "An endpoint that fails for so long without a single success is disabled.",
    )
    webhook_origin: str = _setting(
        "cavendish",
        env_parsers.token,
        "name",
        "Who we are when an endpoint is asked for its consent (`WebHook-Request-Origin`).",
    )
    egress_proxy: str = _setting(
        "",
        env_parsers.url("http", "https"),
        "URL",
        "Proxy that all webhooks go through; it then checks the addresses.",
        secret=True,
    )
    operations_webhook: str = _setting(
        "",
        env_parsers.endpoint,
        "URL or name",
        "Where `endpoint.disabled` is announced: a URL or a registered endpoint.",
        secret=True,
    )
    secret_key: tuple[str, ...] = _setting(
        (),
        env_parsers.encryption_keys,
        "base64",
        "Encrypts the secrets of registered endpoints; several keys: the newest first; `cavendish up` makes one.",
        secret=True,
    )
    result_ttl: tuple[tuple[str, float], ...] = _setting(
        (),
        env_parsers.lifetimes,
        "s",
        "How long result links live at the API, or service=seconds pairs; late webhooks then say so.",
    )
    webhook_timeout: float = _setting(
        15.0, env_parsers.number(0.5, 60), "s", "Longest webhook call, wall clock, all included."
    )
    shards: int = _setting(
        1, env_parsers.whole(1, 256), "shards", "Into how many parts each lane of the store is cut."
    )
    concurrency: int = _setting(
        16,
        env_parsers.whole(5, 256),
        "threads",
        "Celery tasks that one worker process runs at a time.",
    )
    shutdown_timeout: float = _setting(
        20.0,
        env_parsers.number(1, 600),
        "s",
        "How long a worker that is to end may take for it; `cavendish up` then kills it.",
    )
    flower_port: int = _setting(
        5555, env_parsers.whole(0, 65535), "port", "Flower's port; 0: any free one."
    )
    flower_address: str = _setting(
        "127.0.0.1",
        env_parsers.address,
        "address",
        "Where Flower listens; beyond this machine only with a login.",
    )
    flower_basic_auth: str = _setting(
        "",
        env_parsers.login,
        "user:password",
        "Login for Flower, which also allows its buttons; unset: it only shows.",
        secret=True,
    )
    metrics_port: tuple[str, int] | None = _setting(
        None,
        env_parsers.listening,
        "[host:]port",
        "Where each worker process serves its own Prometheus metrics (host: 127.0.0.1); unset: off.",
    )
    log_format: str = _setting(
        "console",
        env_parsers.one_of("console", "json"),
        "console | json",
        "Shape of the log lines.",
    )
    log_level: str = _setting(
        "info",
        env_parsers.one_of("debug", "info", "warning", "error"),
        "level",
        "Least level that is logged.",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises SettingsError with every complaint at once, by environment name.
        """
        environ = os.environ if environ is None else environ
        values, complaints = {}, []
        for setting in fields(cls):
            name = env_name(setting.name)
            text = environ.get(name, "").strip()
            if not text:
                continue
            try:
                values[setting.name] = setting.metadata["read"](text)
            except ValueError as error:
                complaints.append(_complaint(name, text, error, secret=setting.metadata["secret"]))
        settings = cls(**values)
        complaints += settings._contradictions()
        if complaints:
            raise SettingsError(complaints)
        return settings

    def _contradictions(self) -> list[str]:
        found = []
        if self.lease < 2 * self.call_timeout:
            found.append(
                f"{PREFIX}LEASE must be at least twice {PREFIX}CALL_TIMEOUT, or batches are asked about twice."
            )
        if self.last_poll < self.call_timeout:
            found.append(
                f"{PREFIX}LAST_LOOK must be at least {PREFIX}CALL_TIMEOUT, or a last poll is cut short."
            )
        if not (self.flower_basic_auth or ip_address(self.flower_address).is_loopback):
            found.append(
                f"{PREFIX}FLOWER_ADDRESS lets others see what runs: set {PREFIX}FLOWER_BASIC_AUTH too."
            )
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
        """Bearer token by account.

        Raises OSError or ValueError if the file of tokens cannot be used.
        """
        tokens: dict[str, str] = {}
        if self.api_tokens_file is not None:
            try:
                read = json.loads(self.api_tokens_file.read_text())
            except OSError as error:
                raise OSError(f"{self.api_tokens_file}: {error.strerror}") from None
            except ValueError:
                raise ValueError(f"{self.api_tokens_file} holds no JSON") from None
            if not isinstance(read, dict) or not all(
                isinstance(token, str) and token for token in read.values()
            ):
                raise ValueError(
                    f'{self.api_tokens_file} must hold one JSON object {{"account": "token"}}'
                )
            tokens.update({account: env_parsers.token(token) for account, token in read.items()})
        if self.api_token:
            tokens["default"] = self.api_token
        return tokens


def env_name(setting: str) -> str:
    """The environment name of a field of Settings."""
    return PREFIX + setting.upper()


def _complaint(name: str, text: str, error: ValueError, *, secret: bool) -> str:
    why = str(error)
    if why.startswith(("could not convert", "invalid literal")):
        why = "must be a number"
    return f"{name} {why}" + ("." if secret else f", not {text!r}.")


def described() -> list[tuple[str, str, str, str]]:
    """Name, unit, default and meaning of every setting, as `deploy/env.example` shows them."""
    rows = []
    for setting in fields(Settings):
        unset = setting.default in ("", (), None, 0.0)
        plain = (
            ""
            if unset
            else f"{setting.default:.10g}"
            if isinstance(setting.default, float)
            else str(setting.default)
        )
        rows.append(
            (
                env_name(setting.name),
                setting.metadata["unit"],
                setting.metadata["shown"] or plain,
                setting.metadata["meaning"],
            )
        )
    return rows
