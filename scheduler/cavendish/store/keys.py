"""The keys of the store, all spelt here.

All keys of a lane carry its hash tag `{account/service/shard}`, so each script touches one slot of
a cluster. The clock of a cluster is that of the primary which holds `cavendish:fleet`.

| key                           | type   | content                                                                     |
|-------------------------------|--------|-----------------------------------------------------------------------------|
| cavendish:lanes               | set    | the lanes that exist                                                        |
| cavendish:fleet               | hash   | process -> its last heartbeat, as JSON                                      |
| cavendish:{cavendish:fleet}:format| string | the format of all that lies here, written by the first worker or beat      |
| cavendish:tick                | string | taken by the one dispatch that runs this tick                               |
| cavendish:{account}:rate limit      | hash   | version, value: the rate limit of an account                                      |
| cavendish:endpoints           | hash   | name -> a registered webhook endpoint, as JSON; its secrets are encrypted      |
| cavendish:{tag}:waited        | string | rewritten where replicas are waited for; in the slot of what was written    |
| cavendish:disabled            | hash   | endpoint -> since when and why it is sent nothing, as JSON                  |
| cavendish:{endpoint}:circuit  | hash   | version, value: how well an endpoint takes what it is sent                  |
| cavendish:{lane}:producers    | set    | the producers that have pending ids                                         |
| cavendish:{lane}:due:PRODUCER | zset   | id -> when it is worth a poll, or when its lease ends                       |
| cavendish:{lane}:deadlines    | zset   | id -> its deadline                                                          |
| cavendish:{lane}:leases       | hash   | id -> lease token and the due time before it was claimed                    |
| cavendish:{lane}:task:ID      | hash   | state, times, polls, absences, metadata, trace; webhooks (subscriptions),   |
|                               |        | `to:` each its URL, `closed`: those of them that are delivered or dead           |
| cavendish:{lane}:result:ID    | string | the upstream record as it came                                              |
| cavendish:{lane}:ended        | zset   | id with webhooks -> when it ended                                           |
| cavendish:{lane}:swept        | string | how far the reconcile run has come in `ended`                                       |
| cavendish:{lane}:pending         | zset   | the inbox: fresh delivery -> since when; a delivery is `SUBSCRIPTION:ID`             |
| cavendish:{lane}:pending        | zset   | endpoint -> when its queues are worth a visit, never later than they are    |
| cavendish:{lane}:queue:ENDPOINT| zset  | delivery -> since when it is due, or when its lease ends                        |
| cavendish:{lane}:retries:ENDPOINT| zset| delivery that was tried -> its next try                                         |
| cavendish:{lane}:delivery-leases  | hash   | delivery -> lease token                                                         |
| cavendish:{lane}:dead         | zset   | delivery -> time of death                                                       |
| cavendish:{lane}:delivery:DEBT| hash   | attempts, state, last outcome, log: from the first try on                      |
| cavendish:{lane}:aside        | hash   | id -> why its record could not be read                                      |
| cavendish:{lane}:counts       | hash   | how many were submitted, ended in each state, delivered, buried                  |
| cavendish:{lane}:duration model:MODEL    | hash   | version, value: how long tasks of a model take; without a name: of any       |
| cavendish:{lane}:models       | zset   | model with a duration model of its own -> when it was last taught; the latest of them    |
| cavendish:{lane}:condition    | hash   | version, value: batch limit, and whether the service is out of order        |
| cavendish:{lane}:events       | stream | what ended, capped; with the delay from the finish to the store, in seconds   |
| cavendish.quarantine          | list   | in the broker's Redis: ids of messages that are handed out no more           |
| cavendish.quarantined         | hash   | in the broker's Redis: id -> such a message with its reason, as JSON         |
"""

from __future__ import annotations

from dataclasses import dataclass

from cavendish.model import Lane

LANES = "cavendish:lanes"
ENDPOINTS = "cavendish:endpoints"
DISABLED = "cavendish:disabled"
FLEET = "cavendish:fleet"
TICK = "cavendish:tick"
QUARANTINE, QUARANTINED = "cavendish.quarantine", "cavendish.quarantined"
#: In the slot of FLEET, so that it is read together with the clock.
FORMAT = f"cavendish:{{{FLEET}}}:format"


def rate_limit(account: str) -> str:
    return f"cavendish:{{{account}}}:pace"


def circuit(endpoint: str) -> str:
    return f"cavendish:{{{endpoint}}}:circuit"


def waited(key: str) -> str:
    """A key in the slot of another one; without a hash tag a key is its own."""
    return beside(key, "waited")


def nothing(key: str) -> str:
    """A key in the slot of another one that never is."""
    return beside(key, "nothing")


def beside(key: str, name: str) -> str:
    """A key in the slot of another one."""
    _, _, rest = key.partition("{")
    return f"cavendish:{{{rest.partition('}')[0] or key}}}:{name}"


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """The keys of one lane."""

    lane: Lane

    def _key(self, name: str) -> str:
        return f"cavendish:{{{self.lane}}}:{name}"

    @property
    def producers(self) -> str:
        return self._key("producers")

    def due(self, producer: str) -> str:
        return self._key(f"due:{producer}")

    @property
    def deadlines(self) -> str:
        return self._key("deadlines")

    @property
    def leases(self) -> str:
        return self._key("leases")

    @property
    def pending_deliveries(self) -> str:
        return self._key("pending_deliveries")

    @property
    def endpoint_index(self) -> str:
        return self._key("endpoint-index")

    def queue(self, endpoint: str) -> str:
        return self._key(f"queue:{endpoint}")

    def retries(self, endpoint: str) -> str:
        return self._key(f"retries:{endpoint}")

    @property
    def delivery_leases(self) -> str:
        return self._key("delivery-leases")

    @property
    def ended(self) -> str:
        return self._key("ended")

    @property
    def reconciled(self) -> str:
        return self._key("reconciled")

    @property
    def dead(self) -> str:
        return self._key("dead")

    @property
    def quarantined(self) -> str:
        return self._key("quarantined")

    @property
    def counts(self) -> str:
        return self._key("counts")

    @property
    def service_health(self) -> str:
        return self._key("service-health")

    @property
    def models(self) -> str:
        return self._key("models")

    @property
    def events(self) -> str:
        return self._key("events")

    def durations(self, model: str) -> str:
        return self._key(f"law:{model}")

    def task(self, task_id: str) -> str:
        return self._key(f"task:{task_id}")

    def result(self, task_id: str) -> str:
        return self._key(f"result:{task_id}")

    def delivery(self, delivery: str) -> str:
        return self._key(f"delivery:{delivery}")


def delivery_of(subscription: str, task_id: str) -> str:
    """The name of what is pending to one subscription for one id."""
    return f"{subscription}:{task_id}"


def task_of(delivery: str) -> str:
    """The id whose end a delivery announces."""
    return delivery.partition(":")[2]
