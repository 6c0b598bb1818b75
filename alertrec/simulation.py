"""Made-up customers of a demo: they look at their lists over the web, and take, put off or refuse what they see."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from alertrec.action_types import DISMISSED, EXPANDED, SHOWN, SNOOZED
from alertrec.rules.cards import CHANGE
from alertrec.web.access import Viewer, sign_token

logger = logging.getLogger(__name__)

MEAN_PAUSE_SECONDS = 4.0
_TIMEOUT_SECONDS = 10
_MAX_SHOWN = 4
_PATH = "/api/alerts/recommendations"


class Customer:
    """One customer with a browser of their own."""

    def __init__(self, url: str, secret: str, user_id: str, luck: random.Random) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_SECONDS)
        self._headers = {
            "Authorization": f"Bearer {sign_token(secret, Viewer(user_id))}",
            "Content-Type": "application/json",
        }
        self._luck = luck

    def visit(self) -> None:
        """Look at the list, and answer some of it; the more probable, the more likely a rule is taken."""
        found = self._send("GET", "")
        if found["is_placeholder"]:
            return
        items = found["recommendations"][:_MAX_SHOWN]
        for item in items:
            self._answer(item, SHOWN)
        for item in items:  # after all of them were seen: each answer brings a new list
            if self._luck.random() < 0.3:
                self._answer(item, EXPANDED)
            probability = item["probability"] if item["recommendation_type"] != CHANGE else 0.4
            # As a rule they do what was foretold; of the others, some say so.
            if self._luck.random() < probability:
                self._take(item)
            elif (roll := self._luck.random()) < 0.2:
                self._answer(item, DISMISSED)
            elif roll < 0.35:
                self._answer(item, SNOOZED)

    def close(self) -> None:
        """Close the browser."""
        self._connection.close()

    def _answer(self, item: dict[str, Any], action: str) -> None:
        body = {"event_id": str(uuid4()), "action": action}
        self._send("POST", f"/{item['recommendation_id']}/feedback", body)

    def _take(self, item: dict[str, Any]) -> None:
        names = ("title", "description", "natural_language_query", "category", "priority", "reasoning", "parameters")
        wish = {name: item[name] for name in (*names, "recommendation_id", "alert_type")}
        self._send("POST", "/create-rule", wish | {"event_id": str(uuid4())})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, _PATH + path, text, self._headers)
        answer = self._connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200:
            raise HTTPException(f"{method} {path} was answered {answer.status}")
        return told


def simulate(url: str, secret: str, user_ids: Sequence[str], *, seed: int = 0) -> None:
    """Have customers visit, one after the other, until this process is ended."""
    luck = random.Random(seed)  # noqa: S311  # a demo's
    while True:
        customer = Customer(url, secret, luck.choice(user_ids), luck)
        try:
            customer.visit()
        except (HTTPException, OSError) as error:  # the web app is being started, or has just replaced the list
            logger.warning("a visit ended early: %s", error)
        finally:
            customer.close()
        time.sleep(luck.expovariate(1 / MEAN_PAUSE_SECONDS))
