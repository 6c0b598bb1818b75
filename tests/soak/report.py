"""Tables of what a soak has seen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.soak.soaking import Report

console = Console(width=120)


def print_report(report: Report) -> None:
    """Print figures, what was done, and what was broken."""
    table = Table("figure", title=f"{report.minutes:g} minutes", title_justify="left", header_style="bold")
    for column in ("middle third", "last third", "growth", "allowed", "most", "slope an hour"):
        table.add_column(column, justify="right")
    for each in report.figures:
        allowed = "" if each.allowed is None else f"{each.allowed:.1f}"
        growth, name = f"{each.last - each.middle:+.1f}", each.name if each.is_flat else f"→ {each.name}"
        table.add_row(
            name, f"{each.middle:.1f}", f"{each.last:.1f}", growth, allowed, f"{each.most:.1f}", f"{each.an_hour:+.1f}"
        )
    console.print(table)
    for title, counts in (("done", report.done), ("answers", report.answers), ("children seen", report.children)):
        console.print(f"{title}: " + ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items())))
    for (kind, ends), n in sorted(report.keys_left.items()):
        console.print(f"key left: {n} × {kind}{'' if ends else ' (for ever)'}")
    for promise in report.broken:
        console.print(f"broken: {promise}", style="red")
