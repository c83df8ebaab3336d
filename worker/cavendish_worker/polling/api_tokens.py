"""The tokens of this process: those of CAVENDISH_API_TOKENS_FILE are read again when it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cavendish.policy.rate_limit import RateLimit, with_token
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.polling.upstream import Upstream
from cavendish_worker.telemetry.logs import logger


class ApiTokens(Mapping[str, str]):
    """The token of each account. Others may read it while one thread refreshes it.

    `fault`: why the file cannot be used as it is now; the tokens are those that it had before.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises OSError or ValueError if the file of tokens cannot be used."""
        self._settings, self.fault = settings, ""
        self._seen = _stamp(settings.api_tokens_file)
        self._tokens = settings.tokens()

    def __getitem__(self, account: str) -> str:
        return self._tokens[account]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def refresh(self) -> bool:
        """Read the file again if it is another one, or has changed; true if the tokens are others.

        A file that cannot be used changes nothing, and is logged once.
        """
        stamp = _stamp(self._settings.api_tokens_file)
        if stamp == self._seen:
            return False
        try:
            new = self._settings.tokens()
        except (OSError, ValueError) as error:
            self._complain(str(error))
            new = self._tokens
        else:
            self.fault = ""
        before, self._tokens, self._seen = self._tokens, new, stamp
        if new == before:
            return False
        added, removed = sorted(new.keys() - before.keys()), sorted(before.keys() - new.keys())
        renewed = sorted(name for name in before.keys() & new.keys() if before[name] != new[name])
        logger().info("tokens.read", added=added, removed=removed, renewed=renewed)
        return True

    def _complain(self, fault: str) -> None:
        if fault != self.fault:
            advice = "repair CAVENDISH_API_TOKENS_FILE; the tokens that it had before are used"
            logger().error("tokens.unreadable", why=fault, advice=advice)
        self.fault = fault


@dataclass(slots=True, repr=False)
class TokenNews:
    """Ends the pause of an account whose token the API refused, once this process has another."""

    store: Store
    upstream: Upstream
    tokens: Mapping[str, str]
    _told: dict[str, str] = field(default_factory=dict)

    def tell(self, now: float) -> None:
        """Tell the rate limits of the accounts whose tokens this process did not have before.

        Raises StoreUnavailable; the next call then tells the rest.
        """
        for account, token in self.tokens.items():
            if self._told.get(account) != token:
                if self._tell(account, now):
                    logger().info("account.token_renewed", account=account)
                self._told[account] = token

    def _tell(self, account: str, now: float) -> bool:
        fingerprint = self.upstream.token_fingerprint(account)

        def step(known: RateLimit) -> tuple[RateLimit, bool]:
            after = with_token(known, fingerprint, now)
            return after, after != known

        return self.store.shared_state.change_rate_limit(account, step)


def _stamp(path: Path | None) -> tuple[int, ...]:
    """What changes with a file: its place on the disk, its times, its size; or why it is away.

    Links are followed: Kubernetes mounts a Secret as one, and lets it point elsewhere.
    """
    if path is None:
        return ()
    try:
        about = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
