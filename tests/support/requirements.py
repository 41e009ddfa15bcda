"""The versions that requirements/ pins."""

from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def pins(name: str) -> list[str]:
    """The requirements of a file, including those of files that it includes."""
    lines = [
        line.strip()
        for line in (REQUIREMENTS / name).read_text().splitlines()
        if line.strip() and line[0] != "#"
    ]
    return [
        pin
        for line in lines
        for pin in (pins(line.removeprefix("-r ")) if line.startswith("-r ") else [line])
    ]
