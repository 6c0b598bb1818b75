"""The broker as a worker sees it: what is no message of ours does not get as far as kombu."""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, QoS, Transport
from kombu.transport.virtual import QoS as PlainQoS

from tasks.envelope import ERRORS_OF_MESSAGES, refusal
from tasks.process import give_up

logger = logging.getLogger(__name__)

_QoS: Any = QoS  # their stubs lack much of what is used here
_Channel: Any = Channel
_LOST = (redis.ConnectionError, redis.TimeoutError)
_CONSUMED = "BRPOP"
_REPLIES = ".reply.celery.pidbox"  # the end of the name of a queue with answers to `ping`
_REPLY_SECONDS = 60


class CheckedRedis(redis.Redis):
    """A client whose queues seem to hold only messages that can be taken; what else was there is recorded."""

    def parse_response(self, connection: Any, command_name: str | bytes, **options: Any) -> Any:
        """Return the answer to a command; to waiting for a message, nothing, where what came is none."""
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]  # redis-py's
        if command_name != _CONSUMED or not answer:
            return answer
        queue, raw = answer
        refused = refusal(raw)
        if refused is None:
            return answer
        give_up(refused.task, queue.decode(), refused.message_id, refused.reason, n_runs=0)
        return None


class CheckedQoS(_QoS):  # type: ignore[misc]  # see above
    """What was taken and not acknowledged, without what cannot be delivered again."""

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge a message; where the broker is not reached, it comes again, but keeps none from its place here.

        kombu keeps the place: a worker that has lost as many as it has processes would wait for ever.
        """
        try:
            super().ack(delivery_tag)
        except _LOST:
            PlainQoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        """Hand a message back or drop it; likewise."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except _LOST:
            PlainQoS.ack(self, delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Deliver a message again; one that is none would keep all behind it from that."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except ERRORS_OF_MESSAGES as error:
            give_up(None, None, None, f"an unacknowledged message that is none ({type(error).__name__})", n_runs=0)
            with self.channel.conn_or_acquire(client) as connection, connection.pipeline() as pipe:
                self._remove_from_indices(tag, pipe).execute()


class CheckedChannel(_Channel):  # type: ignore[misc]  # see above
    """A channel whose client checks."""

    QoS = CheckedQoS

    def _receive_one(self, c: Any) -> Any:
        """Take what was published to all workers; what is none of Celery's would end each of them."""
        try:
            return super()._receive_one(c)
        except ERRORS_OF_MESSAGES as error:
            logger.warning("a message to all was dropped: %s", type(error).__name__, extra={"action": "dropped"})
            raise Empty from None

    def _brpop_read(self, **options: Any) -> Any:
        """Read what was waited for; a channel that is closed has lost its connection, and must still be closed whole.

        kombu leaves it half closed, tries again when the connection is no more, and ends the worker.
        """
        try:
            return super()._brpop_read(**options)
        except _LOST:
            if self._closing:
                raise Empty from None
            raise

    def _get_client(self) -> type[redis.Redis]:
        return CheckedRedis

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        super()._put(queue, message, **options)
        if queue.endswith(_REPLIES):
            # Who asked, and would delete the queue, may have gone meanwhile; and a late answer makes it anew.
            with self.conn_or_acquire() as client:
                client.expire(queue, _REPLY_SECONDS)


class CheckedTransport(Transport):
    """The Redis transport, with a check of what comes in."""

    Channel = CheckedChannel


def check_what_comes_in() -> None:
    """Have every connection of this process check, from its next one on."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{CheckedTransport.__name__}"
