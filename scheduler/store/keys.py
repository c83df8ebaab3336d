"""The keys of the book, all spelt here.

All keys of a lane carry its hash tag `{account/service/shard}`, so each script touches one slot of a cluster. The clock
of a cluster is that of the primary which holds `cavendish:fleet`.

| key                           | type   | content                                                                     |
|-------------------------------|--------|-----------------------------------------------------------------------------|
| cavendish:lanes               | set    | the lanes that exist                                                        |
| cavendish:fleet               | hash   | process -> its last heartbeat, as JSON                                      |
| cavendish:{cavendish:fleet}:format| string | the format of all that lies here, written by the first worker or beat      |
| cavendish:tick                | string | taken by the one dispatch that runs this tick                               |
| cavendish:{account}:pace      | hash   | version, value: the pace of an account                                      |
| cavendish:endpoints           | hash   | name -> a registered webhook endpoint, as JSON; its secrets are sealed      |
| cavendish:{tag}:waited        | string | rewritten where replicas are waited for; in the slot of what was written    |
| cavendish:disabled            | hash   | endpoint -> since when and why it is sent nothing, as JSON                  |
| cavendish:{endpoint}:circuit  | hash   | version, value: how well an endpoint takes what it is sent                  |
| cavendish:{lane}:producers    | set    | the producers that have pending ids                                         |
| cavendish:{lane}:due:PRODUCER | zset   | id -> when it is worth a look, or when its lease ends                       |
| cavendish:{lane}:deadlines    | zset   | id -> its deadline                                                          |
| cavendish:{lane}:leases       | hash   | id -> lease token and the due time before it was claimed                    |
| cavendish:{lane}:task:ID      | hash   | state, times, looks, absences, metadata, trace; webhooks (subscriptions),   |
|                               |        | `to:` each its URL, `closed`: those of them that are paid or dead           |
| cavendish:{lane}:result:ID    | string | the upstream record as it came                                              |
| cavendish:{lane}:ended        | zset   | id with webhooks -> when it ended                                           |
| cavendish:{lane}:swept        | string | how far the sweep has come in `ended`                                       |
| cavendish:{lane}:owed         | zset   | the inbox: fresh debt -> since when; a debt is `SUBSCRIPTION:ID`             |
| cavendish:{lane}:owing        | zset   | endpoint -> when its queues are worth a visit, never later than they are    |
| cavendish:{lane}:queue:ENDPOINT| zset  | debt -> since when it is due, or when its lease ends                        |
| cavendish:{lane}:retries:ENDPOINT| zset| debt that was tried -> its next try                                         |
| cavendish:{lane}:debt-leases  | hash   | debt -> lease token                                                         |
| cavendish:{lane}:dead         | zset   | debt -> time of death                                                       |
| cavendish:{lane}:delivery:DEBT| hash   | tries, state, last outcome, log: from the first try on                      |
| cavendish:{lane}:aside        | hash   | id -> why its record could not be read                                      |
| cavendish:{lane}:counts       | hash   | how many were submitted, ended in each state, paid, buried                  |
| cavendish:{lane}:law:MODEL    | hash   | version, value: how long tasks of a model take; without a name: of any       |
| cavendish:{lane}:models       | zset   | model with a law of its own -> when it was last taught; the latest of them    |
| cavendish:{lane}:condition    | hash   | version, value: batch limit, and whether the service is out of order        |
| cavendish:{lane}:events       | stream | what ended, capped; with the delay from the finish to the book, in seconds   |
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.tracking import Lane

LANES = "cavendish:lanes"
ENDPOINTS = "cavendish:endpoints"
DISABLED = "cavendish:disabled"
FLEET = "cavendish:fleet"
TICK = "cavendish:tick"
#: In the slot of FLEET, so that it is read together with the clock.
FORMAT = f"cavendish:{{{FLEET}}}:format"


def pace(account: str) -> str:
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
    def owed(self) -> str:
        return self._key("owed")

    @property
    def owing(self) -> str:
        return self._key("owing")

    def queue(self, endpoint: str) -> str:
        return self._key(f"queue:{endpoint}")

    def retries(self, endpoint: str) -> str:
        return self._key(f"retries:{endpoint}")

    @property
    def debt_leases(self) -> str:
        return self._key("debt-leases")

    @property
    def ended(self) -> str:
        return self._key("ended")

    @property
    def swept(self) -> str:
        return self._key("swept")

    @property
    def dead(self) -> str:
        return self._key("dead")

    @property
    def aside(self) -> str:
        return self._key("aside")

    @property
    def counts(self) -> str:
        return self._key("counts")

    @property
    def condition(self) -> str:
        return self._key("condition")

    @property
    def models(self) -> str:
        return self._key("models")

    @property
    def events(self) -> str:
        return self._key("events")

    def law(self, model: str) -> str:
        return self._key(f"law:{model}")

    def task(self, task_id: str) -> str:
        return self._key(f"task:{task_id}")

    def result(self, task_id: str) -> str:
        return self._key(f"result:{task_id}")

    def delivery(self, debt: str) -> str:
        return self._key(f"delivery:{debt}")


def debt_of(subscription: str, task_id: str) -> str:
    """The name of what is owed to one subscription for one id."""
    return f"{subscription}:{task_id}"


def task_of(debt: str) -> str:
    """The id whose end a debt announces."""
    return debt.partition(":")[2]
