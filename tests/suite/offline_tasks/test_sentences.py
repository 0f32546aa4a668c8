"""Where sentences are taken to begin and end."""

import pytest

from suite.evaluation.offline_tasks.sentences import sentence_spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("It ended.  Then it began.\n", ["It ended.", "Then it began."]),
        ("Mr. Hill met J. Smith of the U.S. Army.", ["Mr. Hill met J. Smith of the U.S. Army."]),
        ("It cost 3.5 million. of that much was lost.", ["It cost 3.5 million. of that much was lost."]),
        ("  Without a stop", ["Without a stop"]),
        (" ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == expected
