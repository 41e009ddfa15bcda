"""The pictures of a report that the pages show: python tests/support/report_pictures.py STATE

Writes analysis/report_desktop.png and analysis/report_phone.png from STATE/report/report.html, in a headless Chromium.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.browser import opened  # noqa: E402

PICTURES = {"report_desktop.png": ((1180, 860), "light"), "report_phone.png": ((390, 780), "dark")}
LIMIT = 150_000
"""Bytes that a picture may have."""


def main(state: str) -> int:
    for name, (size, scheme) in PICTURES.items():
        path = ROOT / "analysis" / name
        with opened(Path(state) / "report" / "report.html", size, scheme) as found:
            found.page.screenshot(path=str(path))
        assert path.stat().st_size < LIMIT, f"{path} has {path.stat().st_size:,} bytes"
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
