"""analysis/README.md names every frame with its columns, every piece, and its Python runs."""

import re
from pathlib import Path

import pytest

from analysis import frames
from analysis.catalogue import FIGURES, TABLES
from analysis.frame_columns import FRAMES

PAGE = (Path(frames.__file__).parent / "README.md").read_text(encoding="utf-8")
ROWS = dict(
    re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE.partition("### Columns")[2], flags=re.MULTILINE)
)


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_and_column_is_on_the_page(name: str) -> None:
    assert set(FRAMES[name]) <= set(re.findall(r"`(\w+)`", ROWS[name]))


def test_every_piece_is_on_the_page() -> None:
    section = PAGE.partition("## tables.py: all")[2].partition("\n## ")[0]
    first = " ".join(re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first)) == {*TABLES, *FIGURES}


def test_the_code_of_the_page_runs(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for name in ("demo", "other"):
        (tmp_path / "state" / name).symlink_to(state)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert set(names["both"].votes.run) == {"ours", "theirs"}  # type: ignore[attr-defined]
