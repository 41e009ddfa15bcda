"""A real headless browser, driven by Playwright: pages as people see them, what the console says, and axe-core's findings."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DESKTOP, PHONE = (1280, 900), (390, 844)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass
class Opened:
    """A page that is open. said: messages of the console that are errors or warnings, exceptions, and requests that were made."""

    page: Any
    said: list[str] = field(default_factory=list)

    def findings(self) -> list[Mapping[str, Any]]:
        """axe-core's violations that are serious or critical."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [each for each in found if each["impact"] in ("serious", "critical")]

    def too_wide(self) -> int:
        """By how many pixels the page is wider than the window."""
        wide: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wide


def browser_here() -> str | None:
    """The browser of this machine; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def opened(
    html: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light", scripts: bool = True
) -> Iterator[Opened]:
    """The page in `html`. scheme: light or dark. scripts: whether JavaScript runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_here(), args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            java_script_enabled=scripts,
            # axe puts itself into the page, which the page's own rules forbid.
            bypass_csp=True,
        )
        found = Opened(context.new_page())
        found.page.on(
            "console",
            lambda message: found.said.append(message.text) if message.type in ("error", "warning") else None,
        )
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "data:")) else found.said.append(request.url)
            ),
        )
        found.page.goto(html.resolve().as_uri())
        yield found
        browser.close()
