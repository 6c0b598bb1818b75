"""What every use case works with: the database, the source relations, the model store, the champion in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from alertrec.announcing import Announcer
from alertrec.errors import ConfigError, ModelStoreError, NoChampionError
from alertrec.live import Live
from alertrec.model_store import ModelStore
from alertrec.recommender import AlertRecommenderModel
from alertrec.rules.backtests import Budget
from alertrec.rules.policy import Policy
from alertrec.settings import Settings
from alertrec.storage import models
from alertrec.storage.database import create_engine
from alertrec.storage.models import ModelVersion
from alertrec.storage.source import Rest, Source
from alertrec.wording import Words

logger = logging.getLogger(__name__)

# Sends a task by its name; the use cases are handed one and know no queue.
Enqueue = Callable[..., None]


@dataclass(frozen=True)
class Champion:
    """The model that serves, and the version it is."""

    version: str
    model: AlertRecommenderModel


class Champions:
    """Holds the champion in memory, and notices a new one at the next request."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._serving: Champion | None = None
        self._refused: set[str] = set()

    @property
    def version(self) -> str | None:
        """The version in memory; None before the first request."""
        return self._serving.version if self._serving is not None else None

    def current(self, connection: Connection) -> Champion:
        """Return the champion in force; while its files cannot be read, the last good version.

        Raises
        ------
        NoChampionError
            If nothing was ever promoted.
        ModelStoreError
            If neither the champion nor any version before it can be read.
        """
        wanted = models.champion(connection)
        if wanted is None:
            raise NoChampionError
        if self._serving is None or self._serving.version != wanted.version:
            self._serving = self._load_or_last_good(connection, wanted)
        return self._serving

    def load(self, version: ModelVersion) -> AlertRecommenderModel:
        """Load any version, checked.

        Raises
        ------
        ModelStoreError
            If it is missing, truncated or altered.
        """
        return AlertRecommenderModel.from_arrays(*self._store.load(version.version, sha256=version.sha256))

    def _load_or_last_good(self, connection: Connection, wanted: ModelVersion) -> Champion:
        refusal = None
        for version in self._candidates(connection, wanted):
            if self._serving is not None and version.version == self._serving.version:
                return self._serving
            try:
                return Champion(version.version, self.load(version))
            except ModelStoreError as error:
                refusal = refusal or error
                self._report(error)
        assert refusal is not None
        raise refusal

    def _candidates(self, connection: Connection, wanted: ModelVersion) -> Iterator[ModelVersion]:
        yield wanted
        yield from models.promoted_before(connection, wanted.version)

    def _report(self, error: ModelStoreError) -> None:
        if error.version not in self._refused:
            self._refused.add(error.version)
            logger.error("model refused: %s", error, extra={"action": "model_refused", "model_version": error.version})


@dataclass(frozen=True)
class Workspace:
    """The means of one process; cheap to make, connects at first use."""

    settings: Settings
    engine: Engine
    source: Source
    store: ModelStore
    champions: Champions
    live: Live
    announce: Announcer

    @property
    def policy(self) -> Policy:
        """What becomes a list of what the model says."""
        return Policy(
            threshold=self.settings.threshold,
            max_items=self.settings.max_items,
            ttl=timedelta(hours=self.settings.list_ttl_hours),
            budget=Budget(self.settings.rule_budget, self.settings.user_budget),
            words=Words(self.settings.locale, self.settings.currency),
        )

    def rest(self, at: datetime) -> Rest:
        """Return for how long what a user has said no to stays away."""
        refused, snoozed = self.settings.dismissed_days, self.settings.snoozed_days
        return Rest(at, refused=timedelta(days=refused), snoozed=timedelta(days=snoozed))


def open_workspace(settings: Settings, **engine_options: Any) -> Workspace:
    """Build the means that these settings describe.

    Raises
    ------
    ConfigError
        If they name no database.
    """
    if settings.database_url is None:
        raise ConfigError(
            "no database is configured: set ALERTREC_DATABASE_URL and ALERTREC_REDIS_URL, "
            "or start the embedded servers with `alertrec up`"
        )
    store = ModelStore(settings.model_location, cache=settings.data_dir.absolute() / "model-cache")
    return Workspace(
        settings=settings,
        engine=create_engine(settings.database_url, **engine_options),
        source=Source(settings.source_schema),
        store=store,
        champions=Champions(store),
        live=Live(),
        announce=Announcer(settings.redis_url),
    )
