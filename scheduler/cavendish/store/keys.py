"""The keys of the store, all spelt here.

All keys of a lane carry its hash tag `{account/service/shard}`, so each script touches one slot of
a cluster. The clock of a cluster is that of the primary which holds `cavendish:fleet`. A delivery
is named `SUBSCRIPTION:ID`. Below, `cavendish:` stands before every key but the last two, which are
in the broker's Redis.

| key                       | type   | content                                                     |
|---------------------------|--------|-------------------------------------------------------------|
| lanes                     | set    | the lanes in which anything is kept                         |
| fleet                     | hash   | process -> its last heartbeat, as JSON                      |
| {cavendish:fleet}:format  | string | format number of all keys, written by the first process     |
| {cavendish:fleet}:origin  | string | when this store began, and a random word: another one is    |
|                           |        | another store                                               |
| {cavendish:fleet}:emptied | string | that the store was emptied under running processes, as JSON |
| {usage}:producers         | zset   | producer -> the hour until which anything counts to it      |
| {usage}:of:PRODUCER       | hash   | `ids` and `bytes` in the store: sums, and `ids:`, `bytes:`  |
|                           |        | each hour until which they count; the first and last hour   |
| reconciled                | string | the last lane that the reconcile run went through           |
| message:TASK              | string | while a message of beat for this task waits in its queue    |
| {account}:due             | zset   | producer -> the time of the next check of one of its lanes  |
| {account}:due:PRODUCER    | zset   | lane -> the time of its next check, never too late          |
| {account}:noted           | zset   | `PRODUCER LANE` -> when the time of its check was written   |
| {cavendish:deadlines}:due | zset   | account -> when the first of its deadlines passes;          |
|                           |        | `due:ACCOUNT` and `noted` as above                          |
| {cavendish:deliveries}:…  | zset   | the same for deliveries: account -> when the first is due   |
| {account}:rate-limit      | hash   | version, value: the rate limit of an account                |
| {account}:dispatcher      | string | taken by the one worker that dispatches it in this tick     |
| {service}:visibility      | hash   | version, value: whether the API knows ids of a service      |
|                           |        | under the token of an account, `account/service`            |
| paused                    | zset   | lane whose service the API does not serve -> since when     |
| controls                  | hash   | `pause ACCOUNT`, `pause ACCOUNT/SERVICE`, `ceiling ACCOUNT` |
|                           |        | -> what an operator set, as JSON                            |
| failing                   | zset   | lane of which every call fails -> since when                |
| episodes                  | hash   | version, value: troubles that are reported to operators     |
| bulk-actions              | hash   | version, value: what operators do in Flower, the latest     |
| blind                     | zset   | service (its lane of shard 0) of which a token knows no id  |
|                           |        | -> when an id was last absent                               |
| endpoints                 | hash   | name -> a registered endpoint, as JSON; secrets encrypted   |
| api-keys                  | hash   | name -> a key of the HTTP service, as JSON; of its secret   |
|                           |        | only a hash                                                 |
| api-keys-used             | hash   | name -> when that key was last used, as JSON                |
| uncertain                 | zset   | paid submit of uncertain fate, as JSON -> when it was sent  |
| {tag}:waited              | string | rewritten where replicas are waited for, in the slot of     |
|                           |        | what was written                                            |
| disabled                  | hash   | endpoint -> since when and why it is sent nothing, as JSON  |
| {cavendish:refused}:index | hash   | refused submit -> what is known of it, as JSON              |
| {cavendish:refused}:sent  | hash   | refused submit -> its ids and options as they were sent     |
| {cavendish:refused}:lost  | string | how many were dropped, since only so many are kept          |
| {endpoint}:circuit        | hash   | version, value: how well an endpoint takes its webhooks     |
| open-circuits             | zset   | endpoint whose circuit is open -> when it last failed       |
| {endpoint}:attempts       | hash   | half hour N of a day -> attempts taken, -N -> those failed  |
| {lane}:producers          | set    | the producers that have pending ids                         |
| {lane}:due:PRODUCER       | zset   | id -> when its next poll is due, or when its lease ends     |
| {lane}:deadlines          | zset   | a time -> the same: when some deadlines may have passed     |
| {lane}:deadline:TIME      | list   | ids to check then; most will have ended                     |
| {lane}:minutes            | zset   | the minutes in which ids were submitted, by their time      |
| {lane}:minute:TIME        | list   | the ids that were submitted then, in their order, for as    |
|                           |        | long as anything of them is kept; '' for a forgotten one    |
| {lane}:leases             | hash   | id -> lease token and the due time before it was claimed    |
| {lane}:task:ID            | hash   | `state` (none: pending), times, polls, absences, metadata,  |
|                           |        | trace, `webhooks` (subscriptions), `to:` each its URL,      |
|                           |        | `closed` (those that are delivered, skipped or dead),       |
|                           |        | `skipped` (those that their endpoints did not choose),      |
|                           |        | `acts` (what operators did, the latest lines of JSON),      |
|                           |        | `in` (the common parts that hold the rest; short names save |
|                           |        | 16 bytes of each record)                                    |
| {lane}:result:ID          | string | the upstream record                                         |
| {lane}:own-keys           | zset   | KEY, a zero byte and ID, of each id that has a key          |
| {lane}:own-keys-checked   | string | how far the reconcile run has come in `own-keys`            |
| {lane}:members:GROUP      | hash   | hash of service and id -> state, '' while it has not ended; |
|                           |        | in lanes of the service `+groups`, where `task:GROUP` is    |
|                           |        | the group, and its end that of all its ids                  |
| {lane}:common             | hash   | common part -> its fields, as JSON: what the ids of a       |
|                           |        | submit share, once; named by a hash of its text             |
| {lane}:common-open        | hash   | common part -> records without expiry that refer to it      |
| {lane}:common-until       | zset   | common part -> until when records with expiry may refer to  |
|                           |        | it                                                          |
| {lane}:ended              | zset   | id with webhooks -> when it ended                           |
| {lane}:reconciled         | string | how far the reconcile run has come in `ended`               |
| {lane}:inbox              | zset   | new delivery, not yet in a queue -> since when              |
| {lane}:endpoint-index     | zset   | endpoint -> when its queues are due, or earlier             |
| {lane}:queue:ENDPOINT     | zset   | delivery -> since when it is due, or when its lease ends    |
| {lane}:retries:ENDPOINT   | zset   | delivery that was attempted -> its next attempt             |
| {lane}:delivery-leases    | hash   | delivery -> lease token                                     |
| {lane}:dead               | zset   | delivery -> when it became a dead letter                    |
| {lane}:delivery:DELIVERY  | hash   | attempts, state, last outcome, log: from the first attempt  |
| {lane}:quarantined        | hash   | id -> why its record could not be read                      |
| {lane}:counts             | hash   | totals: submitted, ended by state, delivered, skipped,      |
|                           |        | buried; for as long as anything of the service is kept      |
| {lane}:durations:MODEL    | hash   | version, value: duration model; without a name: of all      |
| {lane}:callbacks          | hash   | version, value: how many ends the API's callbacks announced |
| {lane}:models             | zset   | model -> when its duration model last learned; the latest   |
| {lane}:service-health     | hash   | version, value: batch limit, and whether the service fails  |
| {lane}:events             | stream | what ended, capped; `delay` in seconds from finish to       |
|                           |        | store; expires a week after the last end, and not before    |
|                           |        | any record without webhooks                                 |
| cavendish.quarantine      | list   | ids of messages that were in hand at deaths of workers      |
| cavendish.unreadable      | list   | ids of messages that no worker can read                     |
| cavendish.quarantined     | hash   | id -> a quarantined message with its reason, as JSON        |
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cavendish.model import Lane

LANES = "cavendish:lanes"
ENDPOINTS = "cavendish:endpoints"
API_KEYS, API_KEYS_USED = "cavendish:api-keys", "cavendish:api-keys-used"
UNCERTAIN = "cavendish:uncertain"
DISABLED = "cavendish:disabled"
PAUSED, FAILING, BLIND = "cavendish:paused", "cavendish:failing", "cavendish:blind"
OPEN_CIRCUITS = "cavendish:open-circuits"
CONTROLS, EPISODES = "cavendish:controls", "cavendish:episodes"
BULK_ACTIONS = "cavendish:bulk-actions"
FLEET, RECONCILED = "cavendish:fleet", "cavendish:reconciled"
#: Hash tags of the due indices that are not of one account.
DEADLINES, DELIVERIES = "cavendish:deadlines", "cavendish:deliveries"
#: Refused submits, in one slot: what is known of them, what was sent, how many were dropped.
REFUSED, REFUSED_SENT, REFUSED_LOST = (
    f"cavendish:{{cavendish:refused}}:{name}" for name in ("index", "sent", "lost")
)
#: In the broker's Redis: the order of its quarantined messages (those that were in hand at deaths
#: of a worker, and those that no worker can read), and their content.
QUARANTINE, UNREADABLE, QUARANTINED = (
    f"cavendish.{name}" for name in ("quarantine", "unreadable", "quarantined")
)
#: In the slot of FLEET, so that it is read together with the clock.
FORMAT = f"cavendish:{{{FLEET}}}:format"
ORIGIN = f"cavendish:{{{FLEET}}}:origin"
EMPTIED = f"cavendish:{{{FLEET}}}:emptied"


def message(task: str) -> str:
    return f"cavendish:message:{task}"


#: In one slot, so that one script counts for a producer and lists it.
PRODUCERS = "cavendish:{usage}:producers"


def usage(producer: str) -> str:
    return f"cavendish:{{usage}}:of:{producer}"


def rate_limit(account: str) -> str:
    return f"cavendish:{{{account}}}:rate-limit"


def dispatcher(account: str) -> str:
    return f"cavendish:{{{account}}}:dispatcher"


def visibility(lane: Lane) -> str:
    """One for all shards."""
    return f"cavendish:{{{lane.account}/{lane.service}}}:visibility"


def circuit(endpoint: str) -> str:
    return f"cavendish:{{{endpoint}}}:circuit"


def attempts(endpoint: str) -> str:
    return f"cavendish:{{{endpoint}}}:attempts"


def waited(key: str) -> str:
    """The key that is rewritten where replicas are waited for, in the slot of another key."""
    return beside(key, "waited")


def nothing(key: str) -> str:
    """A key that never exists, in the slot of another key."""
    return beside(key, "nothing")


def beside(key: str, name: str) -> str:
    """A key in the slot of another key, whose hash tag is the key itself if it has none."""
    _, _, rest = key.partition("{")
    return f"cavendish:{{{rest.partition('}')[0] or key}}}:{name}"


@dataclass(frozen=True, slots=True)
class IndexKeys:
    """The keys of a due index."""

    tag: str

    @property
    def groups(self) -> str:
        return f"cavendish:{{{self.tag}}}:due"

    @property
    def noted(self) -> str:
        return f"cavendish:{{{self.tag}}}:noted"

    def lanes(self, group: str) -> str:
        return f"cavendish:{{{self.tag}}}:due:{group}"


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """The keys of one lane."""

    lane: Lane
    _prefix: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prefix", f"cavendish:{{{self.lane}}}:")

    def _key(self, name: str) -> str:
        return self._prefix + name

    @property
    def producers(self) -> str:
        return self._key("producers")

    def due(self, producer: str) -> str:
        return self._key(f"due:{producer}")

    @property
    def deadlines(self) -> str:
        return self._key("deadlines")

    def deadline(self, time: float) -> str:
        """The ids to check when this time has passed, a whole second."""
        return self._key(f"deadline:{int(time)}")

    @property
    def minutes(self) -> str:
        return self._key("minutes")

    def minute(self, time: float) -> str:
        """The ids that were submitted in the minute of this time."""
        return self._key(f"minute:{minute_of(time)}")

    @property
    def leases(self) -> str:
        return self._key("leases")

    @property
    def inbox(self) -> str:
        return self._key("inbox")

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
    def own_keys(self) -> str:
        return self._key("own-keys")

    @property
    def own_keys_checked(self) -> str:
        return self._key("own-keys-checked")

    def members(self, group: str) -> str:
        return self._key(f"members:{group}")

    @property
    def common(self) -> str:
        return self._key("common")

    @property
    def common_open(self) -> str:
        return self._key("common-open")

    @property
    def common_until(self) -> str:
        return self._key("common-until")

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

    @property
    def callbacks(self) -> str:
        return self._key("callbacks")

    def durations(self, model: str) -> str:
        return self._key(f"durations:{model}")

    def task(self, task_id: str) -> str:
        return self._key(f"task:{task_id}")

    def result(self, task_id: str) -> str:
        return self._key(f"result:{task_id}")

    def delivery(self, delivery: str) -> str:
        return self._key(f"delivery:{delivery}")

    def of_delivery(self, delivery: str) -> list[str]:
        """The keys of a delivery, and of the task and the result that it announces."""
        task_id = task_of(delivery)
        return [self.delivery(delivery), self.task(task_id), self.result(task_id)]


def minute_of(time: float) -> int:
    """The beginning of the minute in which a time lies."""
    return int(time // 60) * 60


def delivery_of(subscription: str, task_id: str) -> str:
    """The name of the delivery that announces one id to one subscription."""
    return f"{subscription}:{task_id}"


def task_of(delivery: str) -> str:
    """The id whose end a delivery announces."""
    return delivery.partition(":")[2]
