"""What upstream and drafter are asked: raw prompts, as the recorded upstream is a base model.

Two sets, of the same kinds: constants are chosen along one, and what is reported is measured along
the other, of which nothing was known when they were chosen.
"""

from __future__ import annotations

from benchmarks.drafters.prompts import PASSAGES

TUNING, HELD_OUT = "tuning", "held_out"
_QUESTIONS = {
    TUNING: (
        "Why is the sky blue?",
        "How can I sleep better?",
        "What should I see in Paris in two days?",
        "How does a bicycle stay upright?",
    ),
    HELD_OUT: (
        "Why does bread rise?",
        "How do I learn to play the guitar?",
        "What is inflation, and whom does it hurt?",
        "How do whales find their way?",
    ),
}
_CODE = {
    TUNING: (
        'def is_prime(n):\n    """Return True if n is a prime number."""\n',
        'class Stack:\n    """A stack with push, pop and peek."""\n\n    def __init__(self):\n',
        'import csv\n\ndef read_table(path):\n    """Read a CSV file, a dictionary per line."""\n',
        "// Returns the sum of all even numbers in an array.\nfunction sumEven(numbers) {\n",
    ),
    HELD_OUT: (
        'def word_counts(text):\n    """Return how often each word occurs in text."""\n',
        'class Account:\n    """A bank account: deposit, withdraw."""\n\n    def __init__(self):\n',
        'import json\n\ndef load_settings(path):\n    """Read settings from a JSON file."""\n',
        "// Returns the longest string in an array.\nfunction longest(strings) {\n",
    ),
}
_PASSAGES = {TUNING: PASSAGES[:4], HELD_OUT: PASSAGES[4:]}
_CHAT = (
    "The following is a conversation between a user and a helpful assistant, who answers in "
    "detail, with several paragraphs.\n\n"
    "User: Why do leaves change their colour in autumn?\n"
    "Assistant: Leaves are green because of chlorophyll, which plants use to turn sunlight into "
    "sugar. In autumn the days become shorter and colder, and trees stop making it. The green "
    "fades, and other colours that were in the leaves all along can be seen: yellow and orange, "
    "from substances called carotenoids. Red is made anew, from sugar that is left in the leaf. "
    "How bright the colours are depends on the weather: warm sunny days and cool nights make the "
    "best reds.\n\n"
    "User: {}\nAssistant:"
)
_SUMMARY = "Text: {}\n\nThe text above, summarised sentence by sentence:\n"

PROMPTS: dict[str, dict[str, tuple[str, ...]]] = {
    name: {
        "chat": tuple(_CHAT.format(question) for question in _QUESTIONS[name]),
        "code": _CODE[name],
        "summary": tuple(_SUMMARY.format(passage) for passage in _PASSAGES[name]),
    }
    for name in (TUNING, HELD_OUT)
}
"""By set and kind."""
STOPS: dict[str, list[str]] = {"chat": ["User:"], "code": [], "summary": ["\n\nText:"]}
