"""What a web process holds: connections, the queue, and what it hears from the broker. Opened by the app's lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from threading import Event, Lock
from typing import Any

from alertrec import sending
from alertrec.errors import ConfigError
from alertrec.settings import Settings
from alertrec.starters import Starters
from alertrec.task_names import PROCESS_ACTIONS
from alertrec.web.live import Hub
from alertrec.web.reading import ListReader
from alertrec.web.usage import Usage
from alertrec.workspace import Workspace, open_workspace


class Web:
    """The means of one web process; cheap to make.

    Raises
    ------
    ConfigError
        If the settings name no servers.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None or settings.redis_url is None:
            raise ConfigError(
                "no servers are configured: set ALERTREC_DATABASE_URL and ALERTREC_REDIS_URL, "
                "or start the embedded ones with `alertrec up`"
            )
        self.settings = settings
        self.lists = ListReader(settings.database_url)
        self.hub = Hub(settings.redis_url)
        self.usage = Usage(settings.redis_url)
        self._has_hint, self._is_hinting = Event(), Lock()

    @cached_property
    def workspace(self) -> Workspace:
        """The means of the use cases, which are called in threads."""
        return open_workspace(self.settings, application_name="alertrec web")

    @cached_property
    def starters(self) -> Starters:
        """What is shown while a list is being made."""
        return Starters(self.workspace)

    def send(self, task: str, *args: Any) -> None:
        """Send a task to the workers.

        Raises
        ------
        QueueUnavailableError
            If the broker does not take it within two seconds.
        """
        sending.send(self.workspace, task, *args)

    def send_if_possible(self, task: str, *args: Any) -> bool:
        """Send what a tick would send as well, some time later; False where the broker does not take it."""
        return sending.send_if_possible(self.workspace, task, *args)

    def hint_at_actions(self) -> None:
        """Have waiting actions applied now, where the broker is there; else the next tick does.

        For after the answer, which must not wait for a frozen broker. One thread at a time sends, for all who ask.
        """
        self._has_hint.set()
        while self._has_hint.is_set() and self._is_hinting.acquire(blocking=False):
            try:
                self._has_hint.clear()
                self.send_if_possible(PROCESS_ACTIONS)
            finally:
                self._is_hinting.release()

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Hold what is open for as long as the app runs."""
        await self.lists.open()
        self.hub.start()
        self.usage.start()
        try:
            yield
        finally:
            await self.usage.stop()
            await self.hub.stop()
            await self.lists.close()
            if "workspace" in self.__dict__:
                self.workspace.engine.dispose()
