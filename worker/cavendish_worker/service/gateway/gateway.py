"""The gateway's parts, built once per process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from cavendish import AsyncClient
from cavendish.errors import StoreUnavailable
from cavendish.service_names import is_allowed
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.uncertain_submits import UncertainSubmit
from cavendish_worker.http import api_proxy
from cavendish_worker.polling.api_tokens import ApiTokens
from cavendish_worker.service.callback_hints import CallbackHints
from cavendish_worker.service.callback_urls import CallbackUrls
from cavendish_worker.service.gateway.api_calls import ApiCalls
from cavendish_worker.service.gateway.body import Room
from cavendish_worker.service.gateway.call_turns import CallTurns
from cavendish_worker.service.gateway.callers import Caller, Callers
from cavendish_worker.service.gateway.lookup import Lookup
from cavendish_worker.service.gateway.passing_on import PassingOn
from cavendish_worker.service.gateway.submitting import Submitting
from cavendish_worker.service.held_requests import HeldRequests
from cavendish_worker.service.key_ring import KeyRing
from cavendish_worker.telemetry.logs import logger
from cavendish_worker.telemetry.metrics import answered

#: Seconds without a byte after which a call of the API counts as lost. Some clients wait as long
#: for a synchronous one.
_SILENCE = 1800.0
#: Bytes of submits that are in memory at once.
_BODIES = 256 * 2**20
#: Seconds before the end of a shutdown at which a call whose answer has not come is given up.
_TO_ANSWER = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the routes of the gateway share."""

    settings: Settings
    api: ApiCalls
    callers: Callers
    lookup: Lookup
    submitting: Submitting
    passing_on: PassingOn
    room: Room
    callback_urls: CallbackUrls
    store: Store

    @classmethod
    def of(
        cls,
        settings: Settings,
        client: AsyncClient,
        store: Store,
        keys: KeyRing,
        held: HeldRequests,
        urls: CallbackUrls,
        hints: CallbackHints,
    ) -> Self:
        """Build them; nothing connects before the first request."""
        s = settings
        transport = api_proxy.transport(s.api_url, s.api_proxy)
        api = ApiCalls(transport, s.api_url, s.connect_timeout, _SILENCE)
        turns = CallTurns(store, s.rate)
        return cls(
            s,
            api,
            Callers(ApiTokens(s), keys),
            Lookup(client, held, hints, urls.below),
            Submitting(api, client, turns, held.ending, s.answer_limit, urls.below),
            PassingOn(api, turns, s.answer_limit),
            Room(_BODIES),
            urls,
            store,
        )

    def serves(self, service: str) -> bool:
        """True for a service whose ids can be tracked."""
        return is_allowed(service, self.settings.services)

    async def last_moment(self) -> None:
        """Until the service ends, and as long as it may wait for answers of the API then."""
        await self.submitting.ending.wait()
        await asyncio.sleep(max(self.settings.shutdown_timeout - _TO_ANSWER, 0.0))

    async def note_uncertain(self, caller: Caller, service: str, said: str) -> None:
        """Let operators know of a paid submit of uncertain fate, by the log and by the store."""
        answered.SUBMITS.add(service, "uncertain")
        logger().error("gateway.submit_uncertain", service=service, outcome=said)

        def note() -> None:
            now = self.store.fleet.now()
            submit = UncertainSubmit(now, caller.account, service, caller.producer, said)
            self.store.uncertain.note(submit)

        with suppress(StoreUnavailable):
            await asyncio.to_thread(note)

    async def close(self) -> None:
        """Close the connections to the API."""
        await self.api.close()
