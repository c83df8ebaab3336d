"""A channel that is closed while somebody still uses it.

Found by partitions, which ended a worker.
"""

from __future__ import annotations

import pytest
from kombu import Connection

from cavendish.task_names import SUBMIT
from cavendish_worker.celeryapp import redis_transport as broker
from conftest import Server


def test_an_acknowledgement_and_a_message_on_a_closed_channel_meet_a_lost_connection(
    server: Server,
) -> None:
    """Celery connects again after such an error; any other ends the worker."""
    broker.install()
    with Connection(f"redis+socket://{server.socket}?virtual_host=1") as connection:
        channel = connection.channel()
        errors = connection.connection_errors
        channel.close()
        assert channel.connection is None
        with pytest.raises(errors, match="the channel was closed"):
            channel.qos.ack("a-tag")
        with pytest.raises(errors, match="the channel was closed"):
            channel._put(SUBMIT, {"properties": {}})
