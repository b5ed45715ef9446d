"""The messages that `detector/doctor/README.md` explains are those of the code."""

import re

import pytest

from tests.conftest import ROOT

TABLE = (ROOT / "detector/doctor/README.md").read_text(encoding="utf-8").partition("Without a message:")[0]
MESSAGES = [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in TABLE.splitlines() if line.startswith("| `")]


def test_there_are_messages() -> None:
    assert len(MESSAGES) >= 13
    assert all(len(row) == 1 for row in MESSAGES)


@pytest.mark.parametrize("message", [row[0] for row in MESSAGES])
def test_a_message_is_in_the_code(message: str) -> None:
    files = [*(ROOT / "detector").rglob("*.py"), *(ROOT / "ops").rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    text = re.sub(r'"\n\s*f?"', "", text)  # parts of one text
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" ;?")]
    assert re.search(r'[^"\n]*'.join(parts), text), message
