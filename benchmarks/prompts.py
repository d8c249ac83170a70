"""What the benchmarks ask: ordinary requests, and an edit that mostly repeats its question."""

CHAT = (
    "Write a short story about a lighthouse keeper.",
    "Explain to a child how a bicycle stays upright.",
    "Describe a walk through an old harbour town in the rain.",
    "Write a letter to a friend about moving to another country.",
    "Explain why the sky is blue and why sunsets are red.",
    "Describe how bread is made, from the field to the table.",
    "Write a short speech for the opening of a public library.",
    "Tell the story of a lost dog that finds its way home.",
)

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
"""The caller's natural `prediction` for it is CODE."""
