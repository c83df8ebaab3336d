"""Messages in hand: those that a worker has taken and not yet acknowledged.

Kombu writes each of them down in Redis, so that it is given back if its worker dies: two writes for
a message, which cost more than all else that Celery does with it. Here only the messages of
producers are written down. All others are hints: one that is lost with its worker costs time, and
would be given back when nobody needs it any more. A worker that ends gives back all that it has.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from cavendish_worker.celeryapp.envelope import KEPT


class InHand(kombu_redis.QoS):
    """Counts a death where Kombu gives a message back: its worker had it in hand for too long."""

    channel: Any
    after_death = False
    _delivered: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        if queue_of(message) == KEPT:
            super().append(message, delivery_tag)
            # Before the task runs: if it ends this process, the message must be in one place only.
            self.channel.forget_note()
        else:
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if self._is_noted(delivery_tag):
            super().ack(delivery_tag)
        else:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 (Kombu's)
        if self._is_noted(delivery_tag):
            super().reject(delivery_tag, requeue)
            return
        if requeue:
            self._give_back(self._delivered[delivery_tag], leftmost=True)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        for tag in [tag for tag in reversed(self._delivered) if not self._is_noted(tag)]:
            self._give_back(self._delivered.pop(tag))
        super().restore_unacked(client)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        self.after_death = True
        try:
            super().restore_visible(*args, **options)
        finally:
            self.after_death = False

    def _is_noted(self, delivery_tag: str) -> bool:
        """True for a message of a producer; and for one that this process does not have."""
        message = self._delivered.get(delivery_tag)
        return message is None or queue_of(message) == KEPT

    def _give_back(self, message: Any, *, leftmost: bool = False) -> None:
        place = message.delivery_info["exchange"], message.delivery_info["routing_key"]
        with self.channel.conn_or_acquire() as client:
            self.channel._do_restore_message(message._raw, *place, client, leftmost)


def queue_of(message: Any) -> str:
    """The queue that a message came from: `envelope.complete` has seen to it."""
    return str(message.delivery_info["routing_key"])
