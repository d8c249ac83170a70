"""Prompts by kind of task, written for this benchmark."""

from __future__ import annotations

TOPICS = ("lighthouses", "origami", "glaciers", "honey", "tunnels", "violins", "deserts", "chess")
PASSAGES = (
    (
        "The old ferry crossed the bay twice a day, carrying mail, bread and the few "
        "people who still lived on the island. When the bridge opened, nobody needed the "
        "ferry any more. Its captain painted it blue, moored it in the harbour and turned "
        "it into a small library."
    ),
    (
        "Paper is folded along straight lines. A fold that points up is called a "
        "mountain, one that points down a valley. With these two folds, repeated in the "
        "right order, a flat sheet becomes a bird, a box or a star, without glue and "
        "without a single cut."
    ),
    (
        "A glacier is a river of ice that moves under its own weight. It carries stones "
        "with it, grinds valleys into round shapes and leaves lakes behind when it melts. "
        "Most glaciers are shrinking today, and with them the water that many cities "
        "drink in summer."
    ),
    (
        "Bees visit flowers to collect nectar. In the hive they pass it from mouth to "
        "mouth and fan it with their wings until most of the water is gone. What is left "
        "is honey, which keeps for years because hardly anything can live in so much "
        "sugar."
    ),
    (
        "The first long tunnels were dug by hand from both sides of the mountain at once. "
        "Surveyors measured so well that the two halves met within a hand's width. "
        "Hundreds of workers died of dust and falling rock, and a small stone at each end "
        "carries their names."
    ),
    (
        "A violin has no frets, so the player must find every note by ear. Its sound "
        "comes from four strings, but most of its voice from the wooden box below them. "
        "Old instruments are said to sound better than new ones; in blind tests, few "
        "listeners can tell."
    ),
    (
        "In the desert the days are hot and the nights are cold. Plants there store water "
        "in thick leaves and open their flowers only after dark. Animals sleep under the "
        "sand until evening, and some of them never drink in all their lives."
    ),
    (
        "Chess is played on a board of sixty-four squares. Each side has sixteen pieces, "
        "and the game ends when a king can no longer escape. Computers have beaten the "
        "best players for many years now, and still more people play than ever before."
    ),
)

KINDS: dict[str, list[str]] = {
    "chat": [
        "I have never been interested in {}. Should I be? Tell me what you think.",
    ],
    "factual": ["What are {}, and why do they matter? Explain it in a paragraph."],
    "creative": ["Write a short story about {}."],
    "code": ["Write a Python class that stores facts about {} and can print and search them."],
    "summarise": ["Summarise this text in two sentences:\n\n{}"],
    "edit": ["Repeat this text, but correct any mistakes:\n\n{}"],
}


def prompts(kind: str) -> list[str]:
    """Eight of them."""
    matter = PASSAGES if kind in ("summarise", "edit") else TOPICS
    return [template.format(one) for template in KINDS[kind] for one in matter]
