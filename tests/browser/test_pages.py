"""What a customer and the bank's staff do in a browser, seen to work."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Site
from tests.integration.processes import wait_for
from tests.integration.worlds import execute, offered, offers_of, read_items

SERIOUS = {"serious", "critical"}


def sign_in(page: Page, site: Site, user_id: str) -> None:
    page.goto(site.url)
    name = "The operator" if user_id == "operator" else user_id
    page.get_by_role("button", name=re.compile(f"^{name}")).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def card_of(page: Page, item: dict[str, Any]) -> Any:
    return page.get_by_role("article", name=item["title"], exact=True)


def answers(site: Site, user_id: str) -> list[str]:
    rows = execute(
        site.workspace,
        "SELECT action FROM alertrec.alert_actions WHERE user_id = :user_id ORDER BY recorded_at, action",
        user_id=user_id,
    )
    return [row["action"] for row in rows]


def rules_of(site: Site, user_id: str, alert_type: str) -> list[dict[str, Any]]:
    query = """
        SELECT parameters, natural_language_query FROM alert_rules
        WHERE user_id = :user_id AND alert_type = :alert_type AND is_active ORDER BY created_at DESC
    """
    return execute(site.workspace, query, user_id=user_id, alert_type=alert_type)


def turnable(site: Site, user_id: str) -> dict[str, Any]:
    """Return an offer among the first four whose threshold can be raised."""
    items = read_items(site.workspace)[user_id][:4]
    return next(item for item in offers_of(items) if {"amount", "percent", "count"} & set(item["parameters"]))


def test_a_customer_changes_a_threshold_and_adds_the_rule(page: Page, site: Site):
    user_id = site.customers[0]
    item = turnable(site, user_id)
    (dial,) = {"amount", "percent", "count"} & set(item["parameters"])
    n_before = len(rules_of(site, user_id, item["alert_type"]))
    sign_in(page, site, user_id)
    card = card_of(page, item)
    expect(card).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    slider = card.get_by_role("slider", name="Threshold")
    before = slider.get_attribute("aria-valuetext")
    heading = card.get_by_role("heading", level=3).element_handle()
    slider.press("ArrowRight")
    assert heading is not None
    wait_for(lambda: heading.inner_text() != item["title"])  # the title says the new number
    title = heading.inner_text()
    turned = page.get_by_role("article", name=title, exact=True)
    assert turned.get_by_role("slider", name="Threshold").get_attribute("aria-valuetext") != before
    turned.get_by_role("button", name="Add rule").click()
    expect(page.get_by_role("status").filter(has_text="Added")).to_be_visible()
    expect(turned).to_have_count(0)
    rules = rules_of(site, user_id, item["alert_type"])
    assert len(rules) == n_before + 1
    assert rules[0]["parameters"][dial] > item["parameters"][dial]
    assert {"shown", "accepted", "created"} <= set(answers(site, user_id))
    wait_for(lambda: item["alert_type"] not in offered(site.workspace, user_id))


def test_what_is_dismissed_goes_and_stays_away(page: Page, site: Site):
    user_id = site.customers[1]
    item = offers_of(read_items(site.workspace)[user_id][:4])[0]
    sign_in(page, site, user_id)
    card_of(page, item).get_by_role("button", name="Never").click()
    expect(card_of(page, item)).to_have_count(0)
    wait_for(lambda: item["alert_type"] not in offered(site.workspace, user_id))
    page.reload()
    expect(page.get_by_role("heading", name="Recommended Rules")).to_be_visible()
    expect(page.get_by_role("article").first).to_be_visible()
    expect(card_of(page, item)).to_have_count(0)
    assert "dismissed" in answers(site, user_id)


def test_not_now_snoozes(page: Page, site: Site):
    user_id = site.customers[2]
    item = offers_of(read_items(site.workspace)[user_id][:4])[0]
    sign_in(page, site, user_id)
    card_of(page, item).get_by_role("button", name="Not now").click()
    expect(card_of(page, item)).to_have_count(0)
    wait_for(lambda: "snoozed" in answers(site, user_id))


def test_the_list_follows_what_happens_elsewhere(page: Page, context: BrowserContext, site: Site):
    user_id = site.customers[3]
    item = offers_of(read_items(site.workspace)[user_id][:4])[0]
    sign_in(page, site, user_id)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(card_of(page, item)).to_be_visible()
    elsewhere = context.new_page()
    elsewhere.goto(site.url)
    card_of(elsewhere, item).get_by_role("button", name="Never").click()
    # Nothing is done in the first one: the worker writes the list, and says so.
    expect(card_of(page, item)).to_have_count(0)


def test_why_a_rule_is_recommended_can_be_read_by_keyboard(page: Page, site: Site):
    user_id = site.customers[4]
    item = read_items(site.workspace)[user_id][0]
    sign_in(page, site, user_id)
    why = card_of(page, item).get_by_role("button", name="Why this?")
    why.focus()
    page.keyboard.press("Enter")
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(card_of(page, item).get_by_text(item["reasoning"][:40])).to_be_visible()
    wait_for(lambda: "expanded" in answers(site, user_id))


def shown_on(page: Page, tile: str) -> int:
    text = page.get_by_role("region", name=tile).or_(page.locator(".tile", has_text=tile)).first.inner_text()
    found = re.search(r"\b\d[\d,]*\b", text.replace(tile, ""))
    return int(found[0].replace(",", "")) if found else 0


def test_the_counts_of_the_dashboard_move(page: Page, context: BrowserContext, site: Site):
    user_id = site.customers[5]
    sign_in(page, site, "operator")
    expect(page).to_have_url(re.compile("/dashboard$"))
    before = shown_on(page, "Offers shown")
    customer = context.browser.new_context().new_page()  # type: ignore[union-attr]
    sign_in(customer, site, user_id)
    expect(customer.get_by_role("article").first).to_be_visible()
    wait_for(lambda: "shown" in answers(site, user_id))
    wait_for(lambda: shown_on(page, "Offers shown") > before)
    customer.context.close()


def test_the_operator_promotes_a_model_and_rolls_back(page: Page, site: Site):
    newest, *_ = models = execute(site.workspace, "SELECT version, alias FROM alertrec.model_versions")
    champion = next(row["version"] for row in models if row["alias"] == "champion")
    other = next(row["version"] for row in models if row["alias"] is None)
    assert newest
    sign_in(page, site, "operator")
    page.get_by_role("link", name="Models").click()
    page.get_by_role("button", name=f"Promote {other}…").click()
    page.get_by_role("dialog").get_by_role("button", name="Promote", exact=True).click()
    expect(page.get_by_role("status").filter(has_text=f"Model {other} is the champion now")).to_be_visible()
    assert champion_of(site) == other
    page.get_by_role("button", name="Roll back…").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back", exact=True).click()
    expect(page.get_by_role("status").filter(has_text=f"{champion} is the champion again")).to_be_visible()
    assert champion_of(site) == champion


def test_the_operator_sees_lists_being_renewed(page: Page, site: Site):
    sign_in(page, site, "operator")
    page.get_by_role("link", name="Operations").click()
    before = execute(site.workspace, "SELECT count(*) AS n FROM alertrec.job_runs WHERE status = 'done'")[0]["n"]
    page.get_by_role("button", name="Renew all lists…").click()
    page.get_by_role("dialog").get_by_role("button", name="Renew", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="A refresh of all lists was asked for")).to_be_visible()
    rows = page.get_by_role("region", name="Lately finished").get_by_role("row").filter(has_text="Refresh of all lists")
    expect(rows).to_have_count(2)  # without loading the page again
    after = execute(site.workspace, "SELECT count(*) AS n FROM alertrec.job_runs WHERE status = 'done'")[0]["n"]
    assert after == before + 1


def champion_of(site: Site) -> str:
    (row,) = execute(site.workspace, "SELECT version FROM alertrec.model_versions WHERE alias = 'champion'")
    return str(row["version"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("user", "path"),
    [
        (None, "/"),
        ("customer", "/"),
        ("operator", "/dashboard"),
        ("operator", "/dashboard/models"),
        ("operator", "/dashboard/operations"),
        ("operator", "/dashboard/users"),
        ("operator", "/dashboard/users/{customer}"),
    ],
)
def test_pages_have_no_serious_fault_of_accessibility(
    context: BrowserContext, site: Site, user: str | None, path: str, scheme: Any
):
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)
    customer = site.customers[6]
    if user is not None:
        sign_in(page, site, customer if user == "customer" else user)
    page.goto(site.url + path.format(customer=customer))
    page.wait_for_load_state("load")
    if user == "customer":
        expect(page.get_by_role("article").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    serious = [(each["id"], each["help"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS]
    assert serious == []


def test_pages_fit_a_phone(context: BrowserContext, site: Site):
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, site, site.customers[6])
    expect(page.get_by_role("article").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_who_is_not_signed_in_is_asked_to(page: Page, site: Site):
    page.goto(f"{site.url}/dashboard/models")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_customer_sees_no_dashboard(context: BrowserContext, site: Site):
    page = context.new_page()
    sign_in(page, site, site.customers[7])
    answer = page.goto(f"{site.url}/dashboard")
    assert answer is not None
    assert answer.status == 403
    expect(page.get_by_role("heading", name="Forbidden")).to_be_visible()
