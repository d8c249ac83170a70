"""What upstream and drafter are asked: raw prompts, as the recorded upstream is a base model."""

from __future__ import annotations

from benchmarks.drafters.prompts import PASSAGES

_QUESTIONS = (
    "Why is the sky blue?",
    "How can I sleep better?",
    "What should I see in Paris in two days?",
    "How does a bicycle stay upright?",
)
_CODE = (
    'def is_prime(n):\n    """Return True if n is a prime number."""\n',
    'class Stack:\n    """A stack with push, pop and peek."""\n\n    def __init__(self):\n',
    'import csv\n\ndef read_table(path):\n    """Read a CSV file, a dictionary per line."""\n',
    "// Returns the sum of all even numbers in an array.\nfunction sumEven(numbers) {\n",
)
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

PROMPTS: dict[str, tuple[str, ...]] = {
    "chat": tuple(_CHAT.format(question) for question in _QUESTIONS),
    "code": _CODE,
    "summary": tuple(_SUMMARY.format(passage) for passage in PASSAGES[:4]),
}
STOPS: dict[str, list[str]] = {"chat": ["User:"], "code": [], "summary": ["\n\nText:"]}
