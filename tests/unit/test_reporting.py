from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from rich.table import Table

from alertrec.errors import DataError
from alertrec.reporting import render_page, render_tables
from alertrec.reporting.axes import axis_for
from alertrec.reporting.charts import clipped
from alertrec.reporting.contents import Bin, Estimate
from alertrec.reporting.reliability import reliability_chart

SVG = "{http://www.w3.org/2000/svg}"
METRICS = {
    # metric: popularity, ensemble; the other models lie between, by their share of the way
    "hit_at_1": (0.41, 0.66), "hit_at_3": (0.63, 0.88), "mrr": (0.571, 0.789), "ndcg_at_3": (0.55, 0.79),
    "log_loss": (0.1312, 0.0848), "brier": (0.0361, 0.0244), "calibration_error": (0.0121, 0.0042),
    "coverage": (0.29, 0.95), "novelty": (2.1, 3.4), "popularity_bias": (0.42, 0.11),
}  # fmt: skip
MODELS = {
    "popularity": 0.0, "knn": 0.28, "cooccurrence": 0.55, "linear": 0.74,
    "boosting": 0.93, "neural": 0.81, "ensemble": 1.0, "champion": 0.62,
}  # fmt: skip
ALERTS = [
    "high_spending_alert", "large_transaction", "foreign_state_purchase", "recurring_charge_increase",
    "new_merchant", "near_credit_limit", "weekly_summary", "duplicate_charge",
]  # fmt: skip
HOSTILE = "<script>alert('x')</script> & [bold]"


def around(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def a_bin(predicted: float, shift: float, n: int) -> dict[str, Any]:
    observed = min(max(predicted + shift, 0.0), 1.0)
    half = 1.96 * math.sqrt(max(observed * (1 - observed), 0.001) / n)
    return {
        "predicted": predicted, "observed": observed, "n": n,
        "low": max(observed - half, 0.0), "high": min(observed + half, 1.0),
    }  # fmt: skip


def bins(reach: float, n: int) -> list[dict[str, Any]]:
    shifts = (0.01, -0.02, 0.015, 0.03, -0.03, 0.01, -0.04, 0.02)
    return [a_bin(reach * (place + 0.5) / 8, shift * reach, max(n >> place, 5)) for place, shift in enumerate(shifts)]


def a_model(share: float, alerts: list[str]) -> dict[str, Any]:
    return {
        "metrics": {
            key: around(base + share * (best - base), 0.03 * abs(base) + 0.001) for key, (base, best) in METRICS.items()
        },
        "reliability": bins(0.9, 9000),
        "by_alert": {
            alert: {
                "n_wanted": 800 - 20 * place, "n_offered": 2600 - 60 * place, "log_loss": 0.08 + 0.003 * place,
                "calibration_error": 0.004 + 0.002 * place, "reliability": bins(1.0 / (1 + place), 900),
            }
            for place, alert in enumerate(alerts)
        },
        "calibrated": True,
    }  # fmt: skip


def compared(metric: str, against: str, models: dict[str, Any]) -> dict[str, Any]:
    mine, theirs = (models[name]["metrics"][metric]["value"] for name in ("ensemble", against))
    difference = around(mine - theirs, abs(mine - theirs) * 0.15)
    ends = {"low": difference["low"], "high": difference["high"]}
    return {"model": "ensemble", "against": against, "metric": metric, "difference": difference["value"]} | ends


def a_protocol(alerts: list[str]) -> dict[str, Any]:
    models = {name: a_model(share, alerts) for name, share in MODELS.items()}
    comparisons = [
        compared(metric, against, models)
        for against in ("popularity", "knn", "champion")
        for metric in ("log_loss", "mrr")
    ]
    return {"n_users": 5_812, "models": models, "comparisons": comparisons}


def a_group(n_users: int, shift: float) -> dict[str, Any]:
    return {"n_users": n_users, "log_loss": around(0.0848 + shift, 0.004), "mrr": around(0.789 - 2 * shift, 0.02)}


def sample_report(alerts: list[str] = ALERTS) -> dict[str, Any]:
    """Return a report of a good training that failed one gate; JSON-ready."""
    features = ("amount_mean", "amount_p90", "n_merchants", "weekend_share", "credit_utilisation", "n_states")
    return {
        "format": 1,
        "created_at": "2026-10-02T03:11:09+00:00", "as_of": "2026-10-01T23:59:59+00:00",
        "version": "2026-10-02-0311", "algorithm": "ensemble", "n_users": 29_061,
        "n_enabled": {alert: 9_000 - 700 * place for place, alert in enumerate(alerts)},
        "protocols": {
            "leave_one_out": a_protocol(alerts) | {"n_folds": 5},
            "split_in_time": a_protocol(alerts) | {"split_at": "2026-08-01T00:00:00+00:00", "n_users": 1_204},
        },
        "groups": {
            "activity": {"low": a_group(1_937, 0.009), "middle": a_group(1_938, 0.001), "high": a_group(1_937, -0.01)},
            "credit_limit": {"below 5,000": a_group(2_100, 0.002), "5,000 and more": a_group(3_712, -0.001)},
            "home_state": {"CA": a_group(700, 0.001), "NY": a_group(412, -0.003), "TX": a_group(350, 0.004)},
        },
        "gates": [
            {"name": "enough data", "passed": True, "measured": 29_061, "bound": 200,
             "message": "29,061 users with purchases."},
            {"name": "calibration", "passed": True, "measured": 0.0042, "bound": 0.02,
             "message": "Probabilities are 0.4 points off on average."},
            {"name": "fairness", "passed": False, "measured": 1.31, "bound": 1.25,
             "message": "Users of low activity are served 31 % worse than the rest."},
            {"name": "beats_champion", "passed": True, "measured": None, "bound": None,
             "message": "Better beyond noise."},
        ],
        "drift": {feature: 0.31 / (1 + place) for place, feature in enumerate(features)},
        "ablation": [
            {"features": "recurring charges", "columns": ["n_recurring"], "log_loss_without": 0.0871,
             "difference": 0.0023, "low": 0.0012, "high": 0.0034},
            {"features": "places", "columns": ["n_states"], "log_loss_without": 0.0849,
             "difference": 0.0001, "low": -0.0006, "high": 0.0008},
        ],
        "leaks": [],
        "answers": {
            alerts[0]: {"n_answers": 1_200, "n_taken": 300, "shift": 0.314},
            alerts[1]: {"n_answers": 400, "n_taken": 20, "shift": -0.628},
        },
    }  # fmt: skip


def hostile_report() -> dict[str, Any]:
    report = sample_report([HOSTILE, *ALERTS])
    report |= {"version": HOSTILE, "drift": {HOSTILE: 0.4}}
    report["groups"][HOSTILE] = {HOSTILE: a_group(10, 0.0)}
    report["gates"].append({"name": HOSTILE, "passed": False, "measured": 1, "bound": 2, "message": HOSTILE})
    report["ablation"][0]["features"] = HOSTILE
    report["leaks"] = [{"feature": HOSTILE, "alert": HOSTILE, "auc": 0.999, "n": 100}]
    report["protocols"]["leave_one_out"]["models"][HOSTILE] = a_model(0.5, [])
    report["protocols"]["split_in_time"] = {"skipped": HOSTILE}
    report["protocols"]["leave_one_out"]["comparisons"][0]["against"] = HOSTILE
    return report


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in sample_report().items() if key not in keys}


def bare(**changes: Any) -> dict[str, Any]:
    """Return a report with nothing but what is required, and these changes."""
    kept = ("format", "created_at", "as_of", "algorithm", "n_users")
    return {key: sample_report()[key] for key in kept} | changes


def parsed(page: str) -> ElementTree.Element:
    """Return the page as a tree; an error if an element is not closed or an entity is unknown."""
    return ElementTree.fromstring(page.removeprefix("<!doctype html>"))  # noqa: S314 - a page of our own


def text_of(page: str) -> str:
    root = parsed(page)
    return re.sub(r"\s+", " ", " ".join(root.find("body").itertext()))  # type: ignore[union-attr]


def printed(report: dict[str, Any]) -> str:
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        for shown in render_tables(report):
            console.print(shown)
    return capture.get()


def charts(page: str) -> Iterator[ElementTree.Element]:
    return parsed(page).iter(f"{SVG}svg")


class Tags(HTMLParser):
    """What a browser sees: every tag with its attributes, all numbered identifiers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.ids: list[str] = []
        self.pointers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in {"src", "href", "srcset", "action", "data"}
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-labelledby":
                self.pointers += (value or "").split()


def test_the_page_is_well_formed_and_its_labels_point_somewhere():
    page = render_page(sample_report())
    parsed(page)
    tags = Tags(page)
    assert len(set(tags.ids)) == len(tags.ids)
    assert set(tags.pointers) <= set(tags.ids)


def test_the_page_needs_nothing_else():
    page = render_page(sample_report())
    assert not {"script", "link", "img", "iframe", "object"} & set(Tags(page).names)
    assert set(re.findall(r"\w+=\"https?://[^\"]*", page)) == {'xmlns="http://www.w3.org/2000/svg'}
    assert len(re.findall("https?://", page)) == page.count("xmlns=")
    assert "@import" not in page
    assert "url(" not in page


def test_every_chart_says_in_words_what_it_shows():
    found = list(charts(render_page(sample_report())))
    assert len(found) == 2 + 1 + len(ALERTS) + 2 + 2 + 2  # models, reliability, alert types, groups, inputs, in time
    for chart in found:
        assert chart.get("role") == "img"
        assert (chart.findtext(f"{SVG}title") or "").strip()
        assert (chart.findtext(f"{SVG}desc") or "").strip()


def test_nothing_is_drawn_outside_of_a_chart():
    for chart in charts(render_page(sample_report())):
        _, _, width, height = map(float, (chart.get("viewBox") or "").split())
        for shape in chart.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(shape.get(name, 0)) <= width
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(shape.get(name, 0)) <= height


def test_text_comes_out_harmless():
    page = render_page(hostile_report())
    assert "script" not in Tags(page).names
    assert "<script" not in page
    assert text_of(page).count(HOSTILE) >= 10
    assert "[bold]" in printed(hostile_report())


def test_the_verdict_says_which_model_by_how_much_and_whether_the_gates_pass():
    text = text_of(render_page(sample_report()))
    assert "The chosen model is the ensemble: of 100 users, 88 find the alert they want among the first three" in text
    assert "offering everyone the most popular alerts, it would be 63." in text
    # 0.0848 - 0.1312 = -0.0464, which is 35 % of 0.1312; the interval is 15 % of it to each side.
    assert "Its log-loss is 35 % lower (better) than that of popularity: difference −0.0464" in text
    assert "95 % interval −0.0534 to −0.0394." in text
    assert "lower (better) than that of the promised KNN" in text
    assert "1 of 4 gates failed: fairness." in text


def test_a_difference_within_noise_is_not_called_better():
    report = sample_report()
    report["protocols"]["leave_one_out"]["comparisons"][0] |= {"difference": -0.001, "low": -0.004, "high": 0.002}
    expected = "Its log-loss cannot be told apart from that of popularity: difference −0.0010"
    assert expected in text_of(render_page(report))
    assert expected in re.sub(r"\s+", " ", printed(report))


def test_a_worse_model_is_called_worse():
    report = sample_report()
    report["protocols"]["leave_one_out"]["comparisons"][0] |= {"difference": 0.01, "low": 0.005, "high": 0.015}
    assert "8 % higher (worse) than that of popularity" in text_of(render_page(report))


def test_the_first_training_has_no_champion_to_compare_with():
    report = sample_report()
    protocol = report["protocols"]["leave_one_out"]
    del protocol["models"]["champion"], protocol["comparisons"][4:], report["protocols"]["split_in_time"]
    for shown in (text_of(render_page(report)), printed(report)):
        assert "hampion in force" not in shown
        assert "the promised KNN" in shown


def test_all_gates_passing_is_said():
    report = sample_report()
    for gate in report["gates"]:
        gate["passed"] = True
    assert "All 4 gates pass." in text_of(render_page(report))
    assert "failed" not in printed(report)


@pytest.mark.parametrize(
    "section", ["protocols", "groups", "gates", "drift", "ablation", "leaks", "version", "n_enabled", "answers"]
)
@pytest.mark.parametrize("how", ["missing", "null"])
def test_a_section_may_be_absent(section: str, how: str):
    report = without(section) if how == "missing" else sample_report() | {section: None}
    parsed(render_page(report))
    assert "None" not in text_of(render_page(report))
    assert "None" not in printed(report)


def test_a_report_without_sections_says_that_there_is_no_evaluation():
    expected = "The model is the ensemble; this report holds no evaluation of it. No gate was checked."
    assert expected in text_of(render_page(bare()))
    assert expected in re.sub(r"\s+", " ", printed(bare()))


def test_why_the_split_in_time_was_skipped_is_said():
    report = sample_report()
    report["protocols"]["split_in_time"] = {"skipped": "no rule carries a date"}
    assert "Not judged by a split in time: no rule carries a date" in text_of(render_page(report))
    assert "Split in time: not judged. no rule carries a date" in printed(report)


def test_the_split_in_time_judges_where_leave_one_out_could_not():
    report = sample_report()
    report["protocols"]["leave_one_out"] = {"skipped": "nobody has two alerts"}
    text = text_of(render_page(report))
    assert "Not judged: nobody has two alerts" in text
    assert "The chosen model is the ensemble: of 100 users, 88" in text


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_an_unknown_number_is_a_dash(unknown: float | None):
    report = sample_report()
    models = report["protocols"]["leave_one_out"]["models"]
    models["ensemble"]["metrics"] = dict.fromkeys(METRICS, dict.fromkeys(("value", "low", "high"), unknown))
    models["knn"]["metrics"]["mrr"] = None
    models["ensemble"]["reliability"][0] |= {"observed": unknown, "low": unknown, "high": unknown}
    report["drift"]["n_states"] = unknown
    page = render_page(report)
    assert text_of(page).count("–") >= len(METRICS)
    assert "nan" not in re.findall(r"\w+", page + printed(report))
    assert "inf" not in re.findall(r"\w+", page + printed(report))


def test_what_customers_answered_is_told_by_type():
    rows = [line.split() for line in printed(sample_report()).splitlines()]
    assert [ALERTS[0], "1,200", "300", "25", "%", "+0.31"] in rows
    assert [ALERTS[1], "400", "20", "5", "%", "−0.63"] in rows
    assert f"{ALERTS[1]} 400 20 −0.63" in text_of(render_page(sample_report()))
    for shown in (printed(without("answers")), text_of(render_page(without("answers")))):
        assert "What customers answered" not in shown


def test_no_model_is_best_where_there_is_but_one():
    report = sample_report()
    protocol = report["protocols"]["leave_one_out"]
    protocol |= {"models": {"popularity": protocol["models"]["popularity"]}, "comparisons": []}
    report |= {"algorithm": "popularity"}
    del report["protocols"]["split_in_time"]
    assert "★" not in text_of(render_page(report)).replace("★ marks", "")
    assert "0.630 ±0.020 " in printed(report)


def test_the_best_value_of_each_metric_is_marked():
    rows = [row for row in parsed(render_page(sample_report())).iter("tr") if (row.findtext("th") or "") == "MRR"]
    starred = [index for index, cell in enumerate(rows[0].iter("td")) if "★" in "".join(cell.itertext())]
    assert starred == [0]  # the ensemble, which has the lowest log-loss and so comes first
    assert "→ Ensemble" in printed(sample_report())
    assert "0.789 ±0.018*" in printed(sample_report())


def test_thirty_alerts_and_sixty_features_are_cut_where_the_page_says_so():
    report = sample_report([f"an_alert_type_with_a_long_name_{n}" for n in range(31)])
    report["drift"] = {f"feature_{n:02}_of_a_rather_long_name": n / 100 for n in range(60)}
    report["groups"]["home_state"] = {f"S{n}": a_group(100 + n, 0.0) for n in range(50)}
    page = render_page(report)
    text = text_of(page)
    assert "The 20 of 60 features that moved most." in text
    assert "the 30 most wanted of 31 are drawn" in text
    assert "Of home state, the 12 largest groups are shown." in text
    drawn = next(chart for chart in charts(page) if chart.findtext(f"{SVG}title") == "Input drift by feature")
    names = re.findall(r"feature_(\d+)_", drawn.findtext(f"{SVG}desc") or "")
    assert names == [str(n) for n in range(59, 39, -1)]
    assert "the 20 of 60 features that moved most" in printed(report)


def test_the_tables_fit_into_a_hundred_columns():
    report = sample_report()
    assert all(isinstance(shown, (str, Table)) for shown in render_tables(report))
    lines = printed(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in printed(report)


def test_rendering_leaves_the_report_as_it_was_and_repeats_itself():
    report = sample_report()
    before = copy.deepcopy(report)
    assert render_page(report) == render_page(json.loads(json.dumps(report)))
    assert report == before


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": 2}, "format 2"),
        ({"algorithm": None}, "algorithm of the report must be a text, not None"),
        ({"n_users": "many"}, "n_users of the report must be a whole number, not 'many'"),
        ({"as_of": "yesterday"}, "as_of of the report must be an ISO time, not 'yesterday'"),
        ({"gates": [{"name": "a", "passed": 1, "message": ""}]}, r"gates\[0\].passed of the report must be true or"),
        ({"protocols": {"leave_one_out": {"n_users": 1, "models": {"knn": {}}}}}, "lacks .*models.knn.metrics"),
        ({"drift": {"a": "high"}}, "drift.a of the report must be a number or null, not 'high'"),
        ({"ablation": "none"}, "ablation of the report must be a list, not 'none'"),
        ({"answers": {"a": {"n_answers": 1}}}, "the report lacks answers.a.n_taken, which must be a whole number"),
    ],
)
def test_a_field_that_is_wrong_is_named(changes: dict[str, Any], complaint: str):
    for render in (render_page, render_tables):
        with pytest.raises(DataError, match=complaint):
            render(bare(**changes))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.0841, 0.1342), ["0.08", "0.10", "0.12", "0.14"]),
        ((0.0, 0.31), ["0.0", "0.1", "0.2", "0.3", "0.4"]),
        ((0.0, 0.1 + 0.2), ["0.0", "0.1", "0.2", "0.3"]),
        ((-0.0006, 0.0034), ["−0.001", "0.000", "0.001", "0.002", "0.003", "0.004"]),
        ((math.nan,), ["0.00", "0.25", "0.50", "0.75", "1.00"]),
    ],
)
def test_ticks_are_round_and_hold_all_values(values: tuple[float, ...], labels: list[str]):
    assert [tick.label for tick in axis_for(values, start=0, end=300).ticks] == labels


def test_labels_that_would_touch_are_thinned_out():
    # Six labels of six characters need 6 x (6 x 6.3 + 6) = 263 units; in 150 there is room for three.
    axis = axis_for([-0.0006, 0.0034], start=0, end=150)
    assert [tick.label for tick in axis.ticks] == ["−0.002", "0.000", "0.002", "0.004"]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-9, 1e9])
def test_an_axis_for_a_single_value_has_room_around_it(value: float):
    axis = axis_for([value], start=0, end=100)
    assert axis.low < value < axis.high
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks)


def test_a_long_name_loses_its_middle():
    assert clipped("merchant_category_share_travel", 18) == "merchant_…e_travel"
    assert clipped("n_states", 18) == "n_states"


def test_a_wide_interval_does_not_stretch_the_axes():
    chart = reliability_chart("", [Bin(0.01, Estimate(0.02, 0.0, 0.9), 3)], large=False)
    assert chart is not None
    assert chart.y.high == 0.02
    assert chart.points[0].y_high == chart.y.end


def test_a_perfect_point_lies_on_the_diagonal():
    chart = reliability_chart("", [Bin(0.3, Estimate(0.3, 0.2, 0.4), 50)], large=True)
    assert chart is not None
    # Both axes run over the same values, so the share of the way is the same on both.
    across = (chart.points[0].x - chart.x.start) / (chart.x.end - chart.x.start)
    up = (chart.points[0].y - chart.y.start) / (chart.y.end - chart.y.start)
    assert across == pytest.approx(up, abs=1e-3)
