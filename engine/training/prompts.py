"""What the model is asked: templates about topics, and tasks over its own answers."""

from __future__ import annotations

TOPICS = (
    "Ancient Egypt", "DNA", "Mozart", "a haunted house", "a lost dog", "a rainy city",
    "a shy teenager", "bees", "bicycles", "binary search", "black holes", "chess",
    "climate change", "coffee", "coral reefs", "democracy", "dinosaurs", "dragons",
    "electric cars", "football", "gardening", "glaciers", "inflation", "jazz", "lighthouses",
    "mountain climbing", "painting", "photosynthesis", "poetry", "robots", "sourdough bread",
    "space travel", "tea ceremonies", "the French Revolution", "the Roman Empire",
    "the internet", "the moon", "the stock market", "time travel", "vaccines", "volcanoes",
    "whales",
)  # fmt: skip
HELD_OUT_TOPICS = (
    "origami", "the human heart", "earthquakes", "honey", "medieval castles", "solar energy",
    "a jealous violinist", "suspension bridges",
)  # fmt: skip
"""Nothing is trained on these."""
TEMPLATES: dict[str, tuple[str, ...]] = {
    "chat": (
        "Tell me about {}.",
        "What do you think about {}?",
        "Give me five tips about {}.",
        "Why is {} important?",
        "What are common misconceptions about {}?",
        "I want to learn more about {}. Where should I start?",
        "Help me plan a weekend around {}.",
        "Can you explain {} to a ten year old?",
    ),
    "factual": (
        "What is {}?",
        "When did people first study {}?",
        "What are the causes and effects of {}?",
        "How does {} work?",
        "Define {} in two sentences.",
        "List the main facts about {}.",
    ),
    "creative": (
        "Write a short story about {}.",
        "Write a poem about {}.",
        "Write a dialogue between two friends about {}.",
        "Describe {} in vivid detail.",
        "Write a letter about {}.",
        "Invent a legend about {}.",
    ),
    "code": (
        "Write a SQL query about {}.",
        "Show a Python script that reads a CSV file about {} and prints the average of a column.",
        "Write a Python function that deals with {}.",
        "Write unit tests in Python for a function about {}.",
        "Write a JavaScript function about {}.",
        "Write a Python class that models {} and explain it.",
    ),
}
TASKS: dict[str, tuple[str, ...]] = {
    "summarise": ("Summarize this text:\n\n{}",),
    "edit": (
        "Repeat this text exactly:\n\n{}",
        "Fix any mistakes in this text:\n\n{}",
        "Rewrite this text in simpler words:\n\n{}",
        "Translate the style of this text to be more formal:\n\n{}",
    ),
}
"""Asked about an answer the model gave before."""
KINDS = (*TEMPLATES, *TASKS)


def kind_of(instruction: str) -> str:
    """Which kind of task an instruction is; one the model made up itself is chat."""
    for kinds in (TASKS, TEMPLATES):
        for kind, templates in kinds.items():
            for template in templates:
                before, after = template.split("{}")
                if instruction.startswith(before) and instruction.endswith(after):
                    return kind
    return "chat"
