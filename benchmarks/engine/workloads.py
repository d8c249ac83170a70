"""What the benchmark asks: conversation, a long prompt, and answers that copy from the question."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.base import Request

SKY = Request("What color is the sky?", max_tokens=24)
"""Shows that a server says something sensible before its speed counts."""
SKY_ANSWER = "blue"

_SUBJECTS = (
    "a lighthouse keeper who finds a letter",
    "a lost dog that finds its way home",
    "an old harbour town in the rain",
    "a baker who opens a shop at midnight",
    "two sisters who cross a mountain in winter",
    "a clockmaker and the town that forgot the time",
    "a child who learns to ride a bicycle",
    "the last train of the evening",
)
_FORMS = (
    "Write a long story about {}.",
    "Write a long letter to a friend about {}.",
    "Write a detailed plan for a novel about {}.",
    "Write the first scene of a film about {}.",
)
CHAT = tuple(form.format(subject) for form in _FORMS for subject in _SUBJECTS)
"""32 questions whose answers are long and repeat nothing."""

LICENSE = Path(__file__).parents[2] / "LICENSE"
LONG_PROMPT_CHARACTERS = 10_150
"""Near 2,000 tokens; how many they are to a server is in its own usage."""

CODE = '''\
class Account:
    """A bank account with a history."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self.history = []

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        self.history.append(("deposit", amount))

    def withdraw(self, amount):
        if amount > self.balance:
            raise ValueError("not enough money")
        self.balance -= amount
        self.history.append(("withdraw", amount))
'''
EDIT = f"Repeat this code exactly, but rename the class to Wallet:\n\n```python\n{CODE}```"

REPORT = """\
The harbour of Lindsund was built in 1872, when herring brought more boats than the old jetty \
could hold. Two stone piers, each 180 metres long, keep out the swell from the south-west. In \
its best year, 1913, some 240 boats landed 31,000 tonnes of fish there, and a railway carried \
the barrels inland the same night. After the war the herring stayed away, the railway was \
closed in 1961, and most families moved to the city. The harbour nearly fell into ruin: in the \
storm of January 1976 the head of the eastern pier broke off and sank two boats. A society of \
former fishermen then began to repair the walls by hand, every Saturday, with stones from the \
sea bed. Today the harbour has berths for 60 sailing boats, a small shipyard that builds \
wooden dinghies, and a smokehouse that sells mackerel in summer. The town council wants to add \
a jetty for ferries, which would cost 4.2 million and bring an estimated 50,000 visitors a \
year. The fishermen's society is against it: the ferries, they say, would stir up the mud that \
the piers were built to keep still."""
SUMMARISE = (
    "Summarise the following report by quoting its most important sentences word for word.\n\n"
    + REPORT
)


def chat(streams: int, max_tokens: int) -> list[Request]:
    """`streams` different questions, answered with exactly `max_tokens` tokens each."""
    return [Request(text, max_tokens, ignore_eos=True) for text in CHAT[:streams]]


def long_prompt() -> Request:
    """Answered with a single token: what it takes is reading the prompt."""
    text = LICENSE.read_text(encoding="utf-8")[:LONG_PROMPT_CHARACTERS]
    return Request(f"What is this text about?\n\n{text}", max_tokens=1, long=True)


def edit(max_tokens: int) -> Request:
    """An editor asks for a change and sends the old text along."""
    return Request(EDIT, max_tokens, prediction=CODE)


def summarise(max_tokens: int) -> Request:
    return Request(SUMMARISE, max_tokens)
