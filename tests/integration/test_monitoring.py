"""The figures of the dashboard, from actions whose outcome is worked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from alertrec import monitoring, service
from alertrec.adopting import Wish, adopt
from alertrec.calibration import share_interval
from alertrec.drift import population_stability
from alertrec.errors import DataError
from alertrec.feature_engineering import FEATURES, build_user_features
from alertrec.fitting import request_training
from alertrec.monitoring import Day, Health, Reliability, Totals, engagement, reliability
from alertrec.rules.cards import CHANGE
from alertrec.storage import jobs, models
from alertrec.workspace import Workspace
from tests.integration.worlds import (
    AS_OF,
    add_version,
    execute,
    load,
    read_items,
    scalar,
    small_bank,
    train,
    workspace_on,
)

NOW = datetime(2025, 10, 1, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
HIGH, LARGE = "alert_high_spender", "alert_large_transaction"
ONE, TWO, THREE, FOUR = (UUID(int=number) for number in range(1, 5))

NOTHING = Totals(
    n_offers=0, n_shown=0, n_expanded=0, n_accepted=0, n_dismissed=0, n_snoozed=0, n_customers=0,
    acceptance=None, engagement=None, dismissal=None, n_retained_known=0, n_retained=0, retained=None,
)  # fmt: skip


@pytest.fixture
def workspace(database_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with workspace_on(database_url, tmp_path) as workspace:
        yield workspace


def act(
    workspace: Workspace,
    user_id: str,
    action: str,
    at: datetime,
    recommendation_id: UUID | None = None,
    *,
    alert_type: str | None = HIGH,
    rule: str | None = None,
    probability: float | None = 0.5,
    model: str | None = "m1",
) -> None:
    """Log an action as it stands in the table once the offer's figures have been put to it."""
    execute(
        workspace,
        "INSERT INTO alertrec.alert_actions (event_id, user_id, action, occurred_at, recommendation_id, alert_type,"
        " alert_rule_id, probability, model_version) VALUES (gen_random_uuid(), :user_id, :action, :at, :offer, "
        ":alert_type, :rule, :probability, :model)",
        user_id=user_id, action=action, at=at, offer=recommendation_id, alert_type=alert_type, rule=rule,
        probability=probability, model=model,
    )  # fmt: skip


def add_rule(workspace: Workspace, rule: str, *, is_active: bool, updated_at: datetime, user_id: str = "ann") -> None:
    """Insert a rule into the source relation."""
    execute(
        workspace,
        "INSERT INTO alert_rules (id, user_id, is_active, created_at, updated_at)"
        " VALUES (:rule, :user_id, :is_active, :updated_at, :updated_at)",
        rule=rule, user_id=user_id, is_active=is_active, updated_at=updated_at,
    )  # fmt: skip


def counts_of(totals: Totals) -> tuple[int, ...]:
    names = ("offers", "shown", "expanded", "accepted", "dismissed", "snoozed", "customers")
    return tuple(getattr(totals, f"n_{name}") for name in names)


def test_an_empty_database_has_figures_for_everything(workspace: Workspace):
    found = engagement(workspace, days=3, now=NOW)
    assert found.totals == NOTHING
    assert [day.day for day in found.by_day] == [date(2025, 9, 29), date(2025, 9, 30), date(2025, 10, 1)]
    assert set(found.by_day) == {Day(day.day, 0, 0, 0, 0, 0) for day in found.by_day}
    assert found.by_alert == ()
    assert reliability(workspace) == Reliability((), 0, 0)
    assert (monitoring.models_overview(workspace), monitoring.drift(workspace)) == ((), ())
    assert monitoring.jobs_overview(workspace) == ()
    assert monitoring.health(workspace) == Health(0, 0, 0, None, None, None, None)


@pytest.mark.parametrize("days", [0, -1, monitoring.MAX_DAYS + 1])
def test_a_number_of_days_that_cannot_be_looked_at_is_refused(workspace: Workspace, days: int):
    with pytest.raises(DataError, match="days must be"):
        engagement(workspace, days=days)
    with pytest.raises(DataError, match="days must be"):
        reliability(workspace, days=days)


def test_offers_are_counted_by_what_became_of_them(workspace: Workspace):
    # ann: two offers, one expanded and accepted the day after, one of another type left unanswered.
    act(workspace, "ann", "shown", NOW - DAY, ONE)
    act(workspace, "ann", "expanded", NOW - DAY, ONE)
    act(workspace, "ann", "accepted", NOW, ONE, rule="r1")
    act(workspace, "ann", "shown", NOW, TWO, alert_type=LARGE)
    # bob: one dismissed, one snoozed.
    act(workspace, "bob", "shown", NOW - DAY, THREE)
    act(workspace, "bob", "dismissed", NOW - DAY, THREE)
    act(workspace, "bob", "shown", NOW - DAY, FOUR, alert_type=LARGE)
    act(workspace, "bob", "snoozed", NOW, FOUR, alert_type=LARGE)
    # What concerns a rule is no offer, even with the id of one.
    act(workspace, "ann", "created", NOW, UUID(int=9), rule="r1")
    act(workspace, "bob", "disabled", NOW, rule="r2")
    found = engagement(workspace, days=2, now=NOW)
    assert counts_of(found.totals) == (4, 4, 1, 1, 1, 1, 2)
    # Of four shown: ONE, THREE and FOUR were answered, ONE accepted, THREE dismissed.
    assert (found.totals.acceptance, found.totals.engagement, found.totals.dismissal) == (0.25, 0.75, 0.25)
    # The acceptance of today belongs to yesterday, when its offer was first shown; so does the snoozing.
    assert found.by_day == (Day(date(2025, 9, 30), 3, 1, 1, 1, 1), Day(date(2025, 10, 1), 1, 0, 0, 0, 0))
    assert [(each.alert_type, each.title) for each in found.by_alert] == [
        (HIGH, "High spender"),
        (LARGE, "Large transaction"),
    ]
    assert [counts_of(each.totals) for each in found.by_alert] == [(2, 2, 1, 1, 1, 0, 2), (2, 2, 0, 0, 0, 1, 2)]
    assert [each.totals.acceptance for each in found.by_alert] == [0.5, 0.0]


def test_alert_types_come_in_the_order_of_their_offers(workspace: Workspace):
    for offer in (ONE, TWO):
        act(workspace, "ann", "shown", NOW, offer, alert_type=LARGE)
    act(workspace, "ann", "shown", NOW, THREE)
    act(workspace, "ann", "shown", NOW, FOUR, alert_type=None)  # a list long gone: nothing tells its type
    found = engagement(workspace, now=NOW)
    assert [(each.alert_type, each.totals.n_offers) for each in found.by_alert] == [(LARGE, 2), (HIGH, 1)]
    assert found.totals.n_offers == 4


def test_an_offer_that_is_shown_five_times_counts_once_on_its_first_day(workspace: Workspace):
    for age in range(5):
        act(workspace, "ann", "shown", NOW - age * DAY, ONE)
    found = engagement(workspace, days=7, now=NOW)
    assert counts_of(found.totals) == (1, 1, 0, 0, 0, 0, 1)
    assert [day.n_shown for day in found.by_day] == [0, 0, 1, 0, 0, 0, 0]  # four days ago


def test_equal_recommendation_ids_of_two_users_are_two_offers(workspace: Workspace):
    act(workspace, "ann", "shown", NOW, ONE)
    act(workspace, "bob", "shown", NOW, ONE)
    act(workspace, "bob", "accepted", NOW, ONE, rule="r1")
    found = engagement(workspace, now=NOW)
    assert counts_of(found.totals) == (2, 2, 0, 1, 0, 0, 2)
    assert found.totals.acceptance == 0.5


def test_an_offer_that_was_never_shown_counts_from_its_first_action_and_in_no_share(workspace: Workspace):
    act(workspace, "ann", "expanded", NOW - 2 * DAY, ONE)
    act(workspace, "ann", "accepted", NOW - DAY, ONE, rule="r1")
    act(workspace, "bob", "shown", NOW, TWO)
    found = engagement(workspace, days=3, now=NOW)
    assert [(day.n_shown, day.n_expanded, day.n_accepted) for day in found.by_day] == [(0, 1, 1), (0, 0, 0), (1, 0, 0)]
    # One was shown, to bob, who did nothing: a share of 1 accepted of 1 shown would be ann's.
    assert (found.totals.acceptance, found.totals.engagement) == (0.0, 0.0)


def test_the_window_begins_with_a_day_and_ends_now(workspace: Workspace):
    first = datetime(2025, 9, 30, tzinfo=UTC)
    act(workspace, "ann", "shown", first, ONE)
    act(workspace, "ann", "shown", first - SECOND, TWO)
    act(workspace, "ann", "accepted", first + DAY, TWO, rule="r1")  # of an offer of the day before the window
    act(workspace, "ann", "shown", NOW + SECOND, THREE)
    found = engagement(workspace, days=2, now=NOW)
    assert counts_of(found.totals) == (1, 1, 0, 0, 0, 0, 1)
    assert [day.n_shown for day in found.by_day] == [1, 0]


def test_days_are_those_of_utc_wherever_now_is_told(workspace: Workspace):
    act(workspace, "ann", "shown", datetime(2025, 9, 30, 23, 30, tzinfo=UTC), ONE)
    now = datetime(2025, 10, 1, 1, tzinfo=timezone(timedelta(hours=2)))  # 23:00 UTC of the day before
    assert engagement(workspace, days=1, now=now + timedelta(minutes=45)).by_day == (
        Day(date(2025, 9, 30), 1, 0, 0, 0, 0),
    )


MADE = NOW - 30 * DAY  # accepted exactly 30 days ago, and judged now


@pytest.mark.parametrize(
    ("actions", "row", "is_retained"),
    [
        pytest.param([], (True, MADE), True, id="nothing happened"),
        pytest.param([("disabled", 10)], (True, MADE), False, id="disabled"),
        pytest.param([("deleted", 10)], (True, MADE), False, id="deleted"),
        pytest.param([("disabled", 30)], (True, MADE), False, id="disabled at the last moment"),
        pytest.param([("disabled", 31)], (False, MADE + 31 * DAY), True, id="disabled after it"),
        pytest.param([("disabled", 10), ("enabled", 20)], (True, MADE), True, id="enabled again"),
        pytest.param([("disabled", 10), ("enabled", 31)], (True, MADE), False, id="enabled again too late"),
        pytest.param([], (False, MADE + 10 * DAY), False, id="inactive in its row"),
        pytest.param([], (False, MADE + 30 * DAY), False, id="inactive in its row at the last moment"),
        pytest.param([], (False, MADE + 31 * DAY), True, id="inactive in its row since later"),
        pytest.param([("enabled", 20)], (False, MADE + 10 * DAY), True, id="the log is newer than its row"),
        pytest.param([], None, False, id="its row is missing"),
        pytest.param([("deleted", 31)], None, True, id="its row is missing since later"),
    ],
)
def test_an_accepted_rule_is_retained_if_it_is_on_after_30_days(
    workspace: Workspace, actions: list[tuple[str, int]], row: tuple[bool, datetime] | None, is_retained: bool
):
    act(workspace, "ann", "accepted", MADE, ONE, rule="r1")
    act(workspace, "ann", "created", MADE, rule="r1")
    for action, day in actions:
        act(workspace, "ann", action, MADE + day * DAY, rule="r1")
    if row is not None:
        add_rule(workspace, "r1", is_active=row[0], updated_at=row[1])
    # Others' rules of the same id, and other rules of hers, say nothing; the relation is one that is written to.
    act(workspace, "bob", "deleted", MADE + DAY, rule="r1")
    act(workspace, "ann", "deleted", MADE + DAY, rule="r2")
    add_rule(workspace, "r3", is_active=False, updated_at=MADE + DAY)
    found = engagement(workspace, now=NOW)
    assert (found.totals.n_retained_known, found.totals.n_retained) == (1, int(is_retained))
    assert found.totals.retained == float(is_retained)
    assert [(each.alert_type, each.totals.retained) for each in found.by_alert] == [(HIGH, float(is_retained))]


def test_what_was_accepted_less_than_30_days_ago_is_not_yet_judged(workspace: Workspace):
    act(workspace, "ann", "accepted", MADE, ONE, rule="r1")
    act(workspace, "ann", "accepted", MADE + SECOND, TWO, rule="r2")
    assert engagement(workspace, now=NOW).totals.n_retained_known == 1
    assert engagement(workspace, now=NOW - SECOND).totals.retained is None


def test_retention_looks_back_as_many_days_as_the_window_has(workspace: Workspace):
    # Days 1 October and 30 September, 30 days earlier: 1 September and 31 August.
    act(workspace, "ann", "accepted", datetime(2025, 8, 31, tzinfo=UTC), ONE, rule="r1")
    act(workspace, "ann", "accepted", datetime(2025, 8, 31, tzinfo=UTC) - SECOND, TWO, rule="r2")
    assert engagement(workspace, days=2, now=NOW).totals.n_retained_known == 1
    assert engagement(workspace, days=3, now=NOW).totals.n_retained_known == 2


def test_an_app_that_only_logs_keeps_no_rows_and_its_log_decides(workspace: Workspace):
    add_rule(workspace, "old", is_active=True, updated_at=MADE - 300 * DAY)  # imported once, long ago
    act(workspace, "ann", "accepted", MADE, ONE, rule="r1")
    act(workspace, "ann", "accepted", MADE, TWO, rule="r2")
    act(workspace, "ann", "disabled", MADE + DAY, rule="r2")
    totals = engagement(workspace, now=NOW).totals
    assert (totals.n_retained_known, totals.n_retained, totals.retained) == (2, 1, 0.5)


def test_accepting_twice_without_a_rule_or_advice_makes_no_more_rules(workspace: Workspace):
    act(workspace, "ann", "accepted", MADE - DAY, ONE, rule="r1")
    act(workspace, "ann", "accepted", MADE, ONE, rule="r1")
    act(workspace, "bob", "accepted", MADE, TWO)
    act(workspace, "cem", "accepted", MADE, THREE, rule="r3", probability=None)  # advice: a model, no probability
    act(workspace, "dee", "accepted", MADE, FOUR, rule="r4", probability=None, model=None)  # of an earlier release
    assert engagement(workspace, now=NOW).totals.n_retained_known == 2  # ann's and dee's


def test_what_customers_adopt_is_accepted_and_retained_and_advice_only_accepted(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    service.refresh_locally(workspace, as_of=AS_OF)
    lists = read_items(workspace)
    offer = next(item for items in lists.values() for item in items if item["recommendation_type"] != CHANGE)
    advice = next(item for items in lists.values() for item in items if item["recommendation_type"] == CHANGE)
    for item in (offer, advice):
        wish = Wish(uuid4(), item["title"], item["natural_language_query"], recommendation_id=item["recommendation_id"])
        adopt(workspace, item["user_id"], wish)
    later = datetime.now(UTC) + 30 * DAY
    assert engagement(workspace, now=later - 29 * DAY).totals.n_accepted == 2
    (found,) = [each for each in engagement(workspace, now=later).by_alert if each.totals.n_retained_known]
    assert (found.alert_type, found.totals.n_retained_known, found.totals.n_retained) == (offer["alert_type"], 1, 1)


def test_reliability_holds_what_was_accepted_against_what_was_promised(workspace: Workspace):
    # From 0.2 to 0.3: 0.20 and 0.28, of which one is accepted. From 0.9 to 1, both ends included: one, accepted.
    for user_id, probability, answer in (("ann", 0.2, None), ("bob", 0.28, "accepted"), ("cem", 1.0, "accepted")):
        act(workspace, user_id, "shown", NOW - 2 * DAY, ONE, probability=probability)
        if answer:
            act(workspace, user_id, answer, NOW - DAY, ONE, probability=probability)
    found = reliability(workspace, now=NOW)
    assert (found.n, found.n_waiting) == (3, 0)
    low, high = found.points
    assert (low.low, low.high, low.n, low.observed) == (0.2, 0.3, 2, 0.5)
    assert low.predicted == pytest.approx(0.24)
    assert (low.observed_low, low.observed_high) == tuple(map(float, share_interval(1, 2)))
    assert (high.low, high.high, high.predicted, high.observed, high.n) == (0.9, 1.0, 1.0, 1.0, 1)


def test_reliability_waits_a_day_for_an_answer_that_may_come(workspace: Workspace):
    act(workspace, "ann", "shown", NOW - DAY, ONE)  # exactly a day ago: judged
    act(workspace, "ann", "shown", NOW - DAY + SECOND, TWO)  # waits
    # Those who answer at once wait as well: judged before the others, they would make offers look better than they are.
    for user_id, answer in (("cem", "dismissed"), ("dee", "snoozed"), ("eve", "accepted")):
        act(workspace, user_id, "shown", NOW, FOUR)
        act(workspace, user_id, answer, NOW, FOUR)
    act(workspace, "fay", "shown", NOW - DAY, THREE)
    act(workspace, "fay", "accepted", NOW, THREE)
    found = reliability(workspace, now=NOW)
    assert (found.n, found.n_waiting) == (2, 4)
    assert [(point.n, point.observed) for point in found.points] == [(2, 0.5)]


def test_a_bin_in_which_all_wait_is_left_out(workspace: Workspace):
    act(workspace, "ann", "shown", NOW, ONE)
    assert reliability(workspace, now=NOW) == Reliability((), 0, 1)


def test_reliability_knows_the_probability_that_was_promised_first(workspace: Workspace):
    act(workspace, "ann", "shown", NOW - 3 * DAY, ONE, probability=0.3)
    for age in (0, 1, 2):
        act(workspace, "ann", "shown", NOW - age * DAY, ONE, probability=0.8)
    (point,) = reliability(workspace, now=NOW).points
    assert (point.predicted, point.n) == (0.3, 1)


def test_reliability_leaves_out_advice_what_was_not_shown_and_what_is_older(workspace: Workspace):
    act(workspace, "ann", "shown", NOW - 2 * DAY, ONE, probability=None)
    act(workspace, "ann", "accepted", NOW - 2 * DAY, TWO)
    act(workspace, "ann", "shown", NOW - 91 * DAY, THREE)
    act(workspace, "ann", "shown", NOW - DAY, THREE)
    act(workspace, "ann", "accepted", NOW - DAY, THREE)
    assert reliability(workspace, now=NOW) == Reliability((), 0, 0)


def test_models_are_listed_with_their_figures_and_why_one_was_refused(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    first, second = train(workspace), train(workspace)
    with workspace.engine.begin() as connection:
        add_version(connection, "bare")  # as old as the bank
        stored = models.find(connection, second)
        assert stored is not None
        run_id = jobs.ask_for_run(connection, "training", {})
        run = jobs.claim_run(connection, "training")
        assert run is not None
        assert run.job_id == run_id
        jobs.finish_run(connection, run, result={"version": "bare", "refused": ["no_drift: 0.3"]})
    rows = monitoring.models_overview(workspace)
    assert [row.version for row in rows] == [second, first, "bare"]
    assert [row.alias for row in rows] == ["champion", None, None]
    assert (rows[0].log_loss, rows[0].mrr) == (stored.metrics["log_loss"]["value"], stored.metrics["mrr"]["value"])
    assert rows[0].n_users == stored.data_counts["n_users"] > 0
    assert [row.refusals for row in rows] == [(), (), ("no_drift: 0.3",)]
    assert (rows[2].log_loss, rows[2].mrr, rows[2].n_users) == (None, None, 0)


def test_drift_is_what_the_newest_training_found(workspace: Workspace, tmp_path: Path):
    bank = small_bank()
    load(workspace, bank, tmp_path)
    first = train(workspace)
    assert monitoring.drift(workspace) == ()  # there was nothing to have moved from
    execute(workspace, "UPDATE transactions SET amount = amount * 50")
    train(workspace)
    with workspace.engine.connect() as connection:
        version = models.find(connection, first)
    assert version is not None
    features = build_user_features(
        bank.users.filter("is_active"), bank.transactions.with_columns(bank.transactions["amount"] * 50), as_of=AS_OF
    )
    buyers = features.filter(features["amount_count"] > 0).select(FEATURES).to_numpy()
    expected = population_stability(workspace.champions.load(version).card["feature_profile"], buyers, FEATURES)
    rows = monitoring.drift(workspace)
    assert {row.feature: row.psi for row in rows} == pytest.approx(expected)
    assert [row.psi for row in rows] == sorted((row.psi for row in rows), reverse=True)
    level_of = {row.feature: row.level for row in rows}
    assert (level_of["amount_mean"], level_of["amount_count"]) == ("drifted", "stable")
    assert all((row.level == "drifted") == (row.psi >= 0.25) for row in rows)
    assert all((row.level == "stable") == (row.psi < 0.1) for row in rows)


def test_jobs_tell_how_far_they_are(workspace: Workspace, tmp_path: Path):
    load(workspace, small_bank(), tmp_path)
    train(workspace)
    refresh = service.refresh_locally(workspace, as_of=AS_OF)
    with workspace.engine.begin() as connection:
        add_version(connection, "any")
    waiting = request_training(workspace)
    rows = monitoring.jobs_overview(workspace)
    assert [(row.job_id, row.job, row.status) for row in rows[:2]] == [
        (waiting, "training", "pending"),
        (refresh, "refresh", "done"),
    ]
    n_active = scalar(workspace, "SELECT count(*) FROM users WHERE is_active")
    assert (rows[0].step, rows[0].done, rows[0].total, rows[0].finished_at) == ("pending", 0, 1, None)
    assert (rows[1].step, rows[1].done, rows[1].total, rows[1].error) == ("done", n_active, n_active, None)
    assert (rows[2].job, rows[2].step, rows[2].done, rows[2].total) == ("training", "done", 1, 1)
    assert [row.job_id for row in monitoring.jobs_overview(workspace, limit=1)] == [waiting]


def test_a_job_that_failed_tells_where_and_why(workspace: Workspace):
    request_training(workspace)
    with workspace.engine.begin() as connection:
        run = jobs.claim_run(connection, "training")
        assert run is not None
        jobs.report_progress(connection, run, {"step": "judging", "done": 2, "of": 5})
        jobs.finish_run(connection, run, error="too little data")
    (row,) = monitoring.jobs_overview(workspace)
    assert (row.status, row.step, row.done, row.total, row.error) == ("failed", "judging", 2, 5, "too little data")


def test_health_tells_how_old_the_oldest_work_is(workspace: Workspace):
    with workspace.engine.begin() as connection:
        add_version(connection, "m1", created_at=datetime.now(UTC) - 3 * DAY)
        models.promote(connection, "m1", promoted_by="me")
    for number, hours in enumerate((1, 2, -1)):
        execute(
            workspace,
            "INSERT INTO alertrec.recommendation_lists VALUES"
            " (:user_id, 'ml_hybrid', 'm1', now(), now() + make_interval(hours => :hours), now(), 0)",
            user_id=f"u{number}",
            hours=hours,
        )
    for seconds in (60, 7200):
        act(workspace, "ann", "dismissed", NOW, ONE)
        execute(
            workspace,
            "UPDATE alertrec.alert_actions SET recorded_at = now() - make_interval(secs => :seconds)"
            " WHERE recorded_at > now() - interval '30 s'",
            seconds=seconds,
        )
    act(workspace, "bob", "dismissed", NOW, TWO)
    execute(workspace, "UPDATE alertrec.alert_actions SET processed_at = now() WHERE user_id = 'bob'")
    execute(workspace, "UPDATE alertrec.alert_actions SET recorded_at = '2000-01-01' WHERE user_id = 'bob'")
    job_id = uuid4()
    add_chunks(workspace, job_id, created="30 minutes", finished=(True, False))
    add_chunks(workspace, uuid4(), created="5 hours", finished=(True, True))
    found = monitoring.health(workspace)
    assert (found.lists_current, found.lists_expired, found.actions_waiting) == (2, 1, 2)
    assert found.oldest_action_seconds == pytest.approx(7200, abs=20)
    assert found.oldest_chunk_seconds == pytest.approx(1800, abs=20)
    assert found.champion_version == "m1"
    assert found.champion_age_days == pytest.approx(3, abs=0.01)


def add_chunks(workspace: Workspace, job_id: UUID, *, created: str, finished: tuple[bool, ...]) -> None:
    """Insert a refresh that was asked for a while ago, with one chunk each."""
    execute(
        workspace,
        "INSERT INTO alertrec.job_runs (job_id, job, period, status, created_at)"
        " VALUES (:job_id, 'refresh', :period, 'running', now() - CAST(:created AS interval))",
        job_id=job_id, period=str(job_id), created=created,
    )  # fmt: skip
    for chunk, is_finished in enumerate(finished):
        execute(
            workspace,
            "INSERT INTO alertrec.job_chunks (job_id, chunk, first_user_id, last_user_id, n_users, finished_at)"
            " VALUES (:job_id, :chunk, 'a', 'b', 1, CASE WHEN :is_finished THEN now() END)",
            job_id=job_id, chunk=chunk, is_finished=is_finished,
        )  # fmt: skip


def test_what_was_snoozed_waits_since_it_fell_due(workspace: Workspace):
    act(workspace, "ann", "snoozed", NOW, ONE)
    execute(
        workspace,
        "UPDATE alertrec.alert_actions SET occurred_at = now() - interval '7 days 10 min',"
        " recorded_at = now() - interval '7 days 10 min'",
    )
    found = monitoring.health(workspace)  # the seven days are those of the settings
    assert found.oldest_action_seconds == pytest.approx(600, abs=20)
    execute(workspace, "UPDATE alertrec.alert_actions SET due_at = now() - interval '1 min'")
    assert monitoring.health(workspace).oldest_action_seconds == pytest.approx(60, abs=20)
    execute(workspace, "UPDATE alertrec.alert_actions SET due_at = now() + interval '1 day'")  # never looked at yet
    assert monitoring.health(workspace).oldest_action_seconds == pytest.approx(7 * 86_400 + 600, abs=20)
