"""What customers, the bank, its staff and bad luck do to a system, all at once, until they are told to stop."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psutil
from sqlalchemy import text

from alertrec.task_names import ACTIONS, GENERATE_RECOMMENDATIONS, PROCESS_ACTIONS
from tests.integration.messages import CALL, envelope, put, sealed
from tests.integration.processes import ROOT, run
from tests.integration.web_worlds import API, token
from tests.soak.system import System, scalar

N_VISITORS, N_LISTENERS = 3, 3
VISIT_PAUSE, LISTENING, REFRESH_PAUSE, TROUBLE_PAUSE, SCRAPE_PAUSE = 1.0, 8.0, 5.0, 6.0, 5.0
MOST_WAITING = 30  # on a machine that is busy with other things, customers come less often
RULES_LIVE_SECONDS = 60  # a customer who has switched everything on would leave nothing to offer
BACK_AFTER_SECONDS = (20, 60)
TRAINING_PAUSE, STATUS_PAUSE = 150.0, 30.0
PATIENCE_SECONDS = 30.0  # of a machine that is busy with other things
# What may be answered to somebody whose list has been replaced, or who asks while a server is late.
EXPECTED = {200, 404, 409, 429, 503}


class Load:
    """Counts what was done, and remembers which events were taken for certain, and what was bound to be given up."""

    def __init__(self, system: System, seed: int = 0) -> None:
        self.system = system
        self.done: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.events: set[str] = set()
        self.doubtful: set[str] = set()
        self.given_up: Counter[str] = Counter()  # by what is in its task or its reason
        self.troubles: list[str] = []
        self._luck = random.Random(seed)  # noqa: S311  # it only has to vary
        self._tokens: dict[str, str] = {}
        self._over = threading.Event()
        self._sending, self._counting = threading.Lock(), threading.Lock()
        with system.engine.connect() as connection:
            self._users = list(connection.scalars(text("SELECT id FROM users WHERE is_active ORDER BY id")))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it in threads."""
        work: list[tuple[Callable[[], None], float]] = [
            *((self._visit, VISIT_PAUSE),) * N_VISITORS,
            *((self._listen, 0.1),) * N_LISTENERS,
            (self._act_elsewhere, VISIT_PAUSE),
            (self._switch_off, 5.0),
            (self._refresh, REFRESH_PAUSE),
            (self._train, TRAINING_PAUSE),
            (self._make_trouble, TROUBLE_PAUSE),
            (self._scrape, SCRAPE_PAUSE),
            (self._ask_for_status, STATUS_PAUSE),
        ]
        threads = [threading.Thread(target=self._repeat, args=each, name=each[0].__name__) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, action: Callable[[], None], pause: float) -> None:
        while not self._over.is_set():
            try:
                action()
            except Exception as error:  # told at the end; the others go on
                self.troubles.append(f"{action.__name__}: {type(error).__name__}: {error}"[:300])
                if len(self.troubles) > 20:
                    return
            self._over.wait(pause)

    def _send(self, name: str, *arguments: object) -> str:
        self._count(self.done, name)
        with self._sending:
            return self.system.send(name, *arguments)

    def _count(self, counter: Counter[Any], what: object) -> None:
        with self._counting:  # several threads do
            counter[what] += 1

    def _visit(self) -> None:
        if self.system.broker.llen(ACTIONS) > MOST_WAITING:
            return
        user_id = self._luck.choice(self._users)
        headers = self._headers(user_id)
        with httpx.Client(base_url=self.system.url, headers=headers, timeout=PATIENCE_SECONDS) as client:
            found = self._ask(client, "GET", API)
            items = found["recommendations"] if found and not found["is_placeholder"] else []
            roll = self._luck.random()
            if not items or roll < 0.4:
                self._ask(client, "POST", f"{API}/trigger-generation")
                self._count(self.done, "lists asked for")
            elif roll < 0.8:
                item = self._luck.choice(items)
                back = datetime.now(UTC) + timedelta(seconds=self._luck.uniform(*BACK_AFTER_SECONDS))
                action = self._luck.choice(["snoozed", "dismissed"])
                body = {"action": action, "due_at": back.isoformat(), "event_id": str(uuid4())}
                self._event(client, f"{API}/{item['recommendation_id']}/feedback", body)
            else:
                item = self._luck.choice(items)
                names = ("title", "natural_language_query", "recommendation_id", "alert_type", "parameters")
                wish = {name: item[name] for name in names}
                self._event(client, f"{API}/create-rule", wish, certain=False)

    def _headers(self, user_id: str, *, is_admin: bool = False) -> dict[str, str]:
        """Return what a browser sends; it keeps its token."""
        if user_id not in self._tokens:
            self._tokens[user_id] = token(self.system.settings, user_id, is_admin=is_admin, seconds=86_400)
        return {"authorization": f"Bearer {self._tokens[user_id]}"}

    def _event(self, client: httpx.Client, path: str, body: dict[str, Any], *, certain: bool = True) -> None:
        """Send an event, one in three twice."""
        event_id = body.setdefault("event_id", str(uuid4()))
        for _ in range(self._luck.choice([1, 1, 2])):
            taken = self._ask(client, "POST", path, body) is not None
            (self.events if taken and certain else self.doubtful).add(event_id)
            self._count(self.done, "events by the web app")

    def _ask(self, client: httpx.Client, method: str, path: str, body: object = None) -> Any:
        """Return what is answered; None where it is an error that has to be reckoned with."""
        answer = client.request(method, path, json=body)
        self._count(self.answers, answer.status_code)
        if answer.status_code not in EXPECTED:
            self.troubles.append(f"{method} {path.rsplit('/', 1)[1]}: {answer.status_code} {answer.text[:200]}")
        return answer.json() if answer.status_code == 200 else None

    def _listen(self) -> None:
        headers, ends = self._headers(self._luck.choice(self._users)), time.monotonic() + LISTENING
        with (
            suppress(httpx.ReadTimeout),
            httpx.stream("GET", f"{self.system.url}{API}/stream", headers=headers, timeout=LISTENING) as stream,
        ):
            for _ in stream.iter_lines():
                if time.monotonic() > ends or self._over.is_set():
                    return

    def _act_elsewhere(self) -> None:
        """Log what a customer did in a web app of the bank's own, one in three twice."""
        if self.system.broker.llen(ACTIONS) > MOST_WAITING:
            return
        event = {"event_id": str(uuid4()), "user_id": self._luck.choice(self._users), "action": "accepted"}
        for _ in range(self._luck.choice([1, 1, 2])):
            self._send("log_alert_action", event)
        self.events.add(event["event_id"])

    def _switch_off(self) -> None:
        """Switch off the rules that were created a while ago."""
        query = text("""
            DELETE FROM alert_rules USING alertrec.alert_actions AS made
            WHERE made.alert_rule_id = alert_rules.id AND made.action = 'created'
                AND made.recorded_at < now() - make_interval(secs => :seconds)
            RETURNING alert_rules.id, alert_rules.user_id
        """)
        with self.system.engine.begin() as connection:
            gone = connection.execute(query, {"seconds": RULES_LIVE_SECONDS}).all()
        for rule_id, user_id in gone:
            event = {"event_id": str(uuid4()), "user_id": user_id, "action": "deleted", "alert_rule_id": rule_id}
            self._send("log_alert_action", event)
            self.events.add(event["event_id"])

    def _refresh(self) -> None:
        self._send("refresh_recommendations")
        time.sleep(0.5)
        open_runs = "SELECT count(*) FROM alertrec.job_runs WHERE job = 'refresh' AND finished_at IS NULL"
        while not self._over.is_set() and scalar(self.system.engine, open_runs):
            time.sleep(0.2)

    def _train(self) -> None:
        self._send("train_model", True)

    def _scrape(self) -> None:
        headers = self._headers("ada", is_admin=True)
        for path in ("/metrics", "/health/ready", "/dashboard/operations", f"{API}/metrics"):
            answer = httpx.get(self.system.url + path, headers=headers, timeout=PATIENCE_SECONDS)
            self._count(self.answers, answer.status_code)
            if answer.status_code not in EXPECTED:
                self.troubles.append(f"GET {path}: {answer.status_code} {answer.text[:200]}")

    def _ask_for_status(self) -> None:
        status = run("status", "--json", env=self.system.env, cwd=ROOT)  # ends with 1: letters are provoked
        assert json.loads(status.stdout)["champion"]
        self._count(self.done, "status asked for")

    def _make_trouble(self) -> None:
        self._luck.choice([self._kill_a_child, self._ask_for_nobody, self._put_rubbish])()

    def _kill_a_child(self) -> None:
        name = self._luck.choice(["interactive", "batch"])
        if children := psutil.Process(self.system.processes[name].pid).children():
            with suppress(psutil.NoSuchProcess):
                self._luck.choice(children).kill()
                self._count(self.done, "children killed")

    def _ask_for_nobody(self) -> None:
        self._send("generate_recommendations", f"nobody-{uuid4()}")
        self.given_up[GENERATE_RECOMMENDATIONS] += 1

    def _put_rubbish(self) -> None:
        queue = self._luck.choice(["interactive", "actions", "batch"])
        known = {"task": PROCESS_ACTIONS, "id": str(uuid4())}
        rubbish: dict[str, str | bytes] = {
            "no JSON": b"\x00 no message",
            "unknown task": envelope("alertrec.process_fish"),
            "no call of a task": json.dumps(sealed(b"{}", **known)),
            "ContentDisallowed": json.dumps(sealed(CALL, "application/x-python-serialize", **known)),
        }
        reason = self._luck.choice(list(rubbish))
        put(self.system.env, queue, rubbish[reason])
        self.given_up[reason] += 1
