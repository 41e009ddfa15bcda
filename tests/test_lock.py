"""requirements/lock.txt is what `make lock` makes of the pins: the same versions, hashes for each, and no index."""

import re

from support.house import ROOT
from support.requirements import REQUIREMENTS, pins

LOCK = (REQUIREMENTS / "lock.txt").read_text(encoding="utf-8")
ENTRIES = re.findall(
    r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^\s;]+)(?P<marker> ; [^\\\n]+)? \\\n(?P<hashes>(?:    --hash=.+\n)+)",
    LOCK,
    re.MULTILINE,
)


def plain(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def versions(*files: str) -> dict[str, str]:
    found = (pin.partition("==") for file in files for pin in pins(file))
    return {plain(name): version for name, _, version in found}


def test_every_line_is_a_package_with_its_hashes_and_nothing_names_an_index() -> None:
    parts = [f"{name}=={version}" for name, version, _, _ in ENTRIES]
    starts = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(parts) == len(starts) > 200
    for _, _, _, hashes in ENTRIES:
        assert all(
            re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line) for line in hashes.splitlines()
        )
    assert "://" not in LOCK and "index" not in LOCK


def test_the_lock_has_every_pin_in_its_version_and_no_other_version_of_one() -> None:
    locked: dict[str, set[str]] = {}
    for name, version, _, _ in ENTRIES:
        locked.setdefault(plain(name), set()).add(version)
    missing = {
        name: version for name, version in versions("gpu.txt").items() if locked.get(name) != {version}
    }
    assert missing == {}, "run make lock"
    known = versions("gpu.txt", "constraints.txt", "dev.txt")
    other = {name: found for name, found in locked.items() if name in known and found != {known[name]}}
    assert other == {}, "run make lock"


def test_the_lock_was_made_by_the_command_that_it_names() -> None:
    assert LOCK.splitlines()[1] == "#    make lock"
    [recipe] = re.findall(r"^lock:\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for option in ("--universal", "--generate-hashes", "--no-emit-index-url", "requirements/gpu.txt"):
        assert option in recipe
