"""The README's Python runs, in order, and prints what the README says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", README, re.MULTILINE | re.DOTALL)
BETWEEN = "--- end of block ---"


def test_python_blocks_print_what_they_promise(tmp_path: Path) -> None:
    program = f"print({BETWEEN!r})\n".join(code for code, _ in BLOCKS)
    command = [sys.executable, "-W", "error", "-X", "utf8", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    printed = [_lines(text) for text in done.stdout.split(BETWEEN + "\n")]
    assert printed == [_lines(promised) for _, promised in BLOCKS]


def test_there_are_blocks_and_promises() -> None:
    assert len(BLOCKS) >= 5
    assert all(promised for _, promised in BLOCKS)


def test_linked_files_exist() -> None:
    assert [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / link).exists()] == []


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+) ", README)) <= targets | {"and"}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
