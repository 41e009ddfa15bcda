"""The report in a real browser: nothing in the console, nothing fetched, no serious finding of axe-core, usable at a phone's width, by keyboard, without scripts, printed."""

import importlib.util
from pathlib import Path

import pytest
from support.browser import DESKTOP, PHONE, Opened, browser_here, opened

from analysis.report import write_report

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        browser_here() is None, reason="there is no Chromium on this machine: apt-get install chromium"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("axe_playwright_python") is None,
        reason="Playwright and axe-core are not installed (requirements/dev.txt)",
    ),
]


@pytest.fixture(scope="module")
def html(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(state, tmp_path_factory.mktemp("report"))[0]


def visible(found: Opened, selector: str) -> int:
    return int(found.page.locator(f"{selector}:visible").count())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_it_is_quiet_accessible_and_fits(html: Path, size: tuple[int, int], scheme: str) -> None:
    with opened(html, size, scheme) as found:
        assert found.too_wide() <= 0
        found.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        findings = [(each["id"], each["nodes"][0]["html"][:200]) for each in found.findings()]
        assert findings == []
        assert found.too_wide() <= 0
        assert found.said == []


def test_hostile_texts_do_nothing(tmp_path: Path) -> None:
    from support.hostile_run import hostile

    run = hostile(tmp_path)
    with opened(write_report(run.state.root, tmp_path / "out")[0], PHONE) as found:
        found.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert found.said == [] and found.too_wide() <= 0
        assert found.page.locator("h1").count() == 1 and found.page.locator("img").count() == 0
        assert "pwned" in found.page.locator("#cases").inner_text()


def test_filters_and_search_choose_rows_and_cases(html: Path) -> None:
    with opened(html) as found:
        page, rows = found.page, "[data-row]"
        every = visible(found, rows)
        assert every > 20
        page.locator('[data-filter="iteration"]').select_option("2")
        chosen = page.locator(f"{rows}:visible")
        assert 0 < chosen.count() < every
        assert set(chosen.evaluate_all("(all) => all.map((each) => each.dataset.iteration)")) == {"2"}
        page.locator("[data-search]").fill("no such words anywhere")
        assert visible(found, rows) == 0 and "0 of" in page.locator("output").inner_text()
        page.get_by_role("button", name="Show all").click()
        page.wait_for_function("document.querySelector('output').textContent === ''")
        assert visible(found, rows) == every
        page.locator('[data-filter="kind"]').select_option("upset")
        assert set(
            page.locator(".case:visible").evaluate_all(
                "(all) => all.map((each) => each.dataset.kind.includes('upset'))"
            )
        ) == {True}
        assert found.said == []


def test_the_keyboard_reaches_sections_filters_votes_and_tables(html: Path) -> None:
    with opened(html) as found:
        page = found.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "document.activeElement.tagName + '.' + document.activeElement.className.split(' ')[0]"
                )
            )
        assert {"A.", "SELECT.", "INPUT.", "BUTTON.", "DIV.wide"} <= reached
        summary = page.locator(".case summary").first
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator(".case details").first.get_attribute("open") is not None


def test_without_scripts_everything_is_there(html: Path) -> None:
    with opened(html, scripts=False) as found:
        assert visible(found, ".filters") == 0
        assert visible(found, ".answer") == 4 and visible(found, ".case") > 5


def test_it_can_be_printed(html: Path, tmp_path: Path) -> None:
    with opened(html) as found:
        found.page.emulate_media(media="print")
        assert visible(found, ".filters") == 0 and visible(found, "nav") == 0
        assert found.too_wide() <= 0
        found.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
