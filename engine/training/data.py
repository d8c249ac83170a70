"""Stages "data" and "held-out": what the model is asked, and the texts it writes to it.

The model makes its own training data: half of it answers instructions that it made up itself (what
it says after the bare chat prefix, where a user would speak; Xu et al. 2024, Magpie), the rest
answers templates about topics, and tasks over answers from before.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import EngineError
from engine.training import documents
from engine.training.prompts import HELD_OUT_TOPICS, KINDS, TASKS, TEMPLATES, TOPICS
from engine.training.writing import Assignment, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from engine.engine import Engine
    from engine.training.config import TrainingConfig
    from engine.training.documents import Document, Documents

SEEDS = 1 << 32
PROBE = "\ufdd0"
"""Stands for what a user says; no tokenizer's template writes it."""
EVALUATED = (0.0, 0.7)
"""Temperatures the head is judged at."""


class Author(NamedTuple):
    """An engine that writes, the words for its texts, and whom to tell how far it is."""

    engine: Engine
    tokenizer: PreTrainedTokenizerFast
    tell: Callable[[str], None]

    @property
    def end(self) -> int:
        token = self.tokenizer.eos_token_id
        if not isinstance(token, int):
            raise EngineError("the tokenizer names no token that ends a text")
        return token

    def answer(self, document: Document) -> str:
        """Without special tokens."""
        return str(self.tokenizer.decode(document.tokens[document.start :], True)).strip()

    def bare_prefix(self) -> str:
        """The chat template up to where a user begins to speak."""
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": PROBE}], tokenize=False
        )
        return str(chat).split(PROBE)[0]


def write_data(author: Author, config: TrainingConfig, folder: Path) -> Documents:
    """All documents of the training set, also saved as `folder`/tokens.npz."""
    path = folder / "tokens.npz"
    if path.is_file():
        return documents.load(path)
    chance = random.Random(config.seed)
    count = config.documents
    sampled = round(count * config.instruction_share)
    templated = round(count * config.template_share)
    prefix = author.bare_prefix()
    instructions = _written(
        author,
        config,
        folder / "instructions",
        [
            Assignment(prefix, True, 1.0, chance.randrange(SEEDS), config.instruction_tokens)
            for _ in range(sampled)
        ],
    )
    asked = [text for text in map(author.answer, instructions) if text]
    templates = [template for group in TEMPLATES.values() for template in group]
    asked += [chance.choice(templates).format(chance.choice(TOPICS)) for _ in range(templated)]
    chance.shuffle(asked)
    answers = _written(
        author, config, folder / "answers", [_draw(chance, config, text) for text in asked]
    )
    material = [text for text in map(author.answer, answers) if text]
    tasks = [task for group in TASKS.values() for task in group]
    copies = _written(
        author,
        config,
        folder / "tasks",
        [
            _draw(chance, config, chance.choice(tasks).format(chance.choice(material)))
            for _ in range(count - sampled - templated)
        ],
    )
    everything = [*answers, *copies]
    chance.shuffle(everything)
    made = documents.gather(everything)
    documents.save(made, path)
    return made


def write_held_out(
    author: Author, config: TrainingConfig, folder: Path
) -> dict[tuple[str, float], Documents]:
    """Documents about topics nobody trained on, by kind of task and temperature."""
    written: dict[tuple[str, float], Documents] = {}
    for temperature in EVALUATED:
        material: list[str] = []
        for kind in KINDS:
            templates = TEMPLATES.get(kind) or TASKS[kind]
            about = HELD_OUT_TOPICS if kind in TEMPLATES else material
            asked = [
                templates[n % len(templates)].format(about[(n + n // len(about)) % len(about)])
                for n in range(config.held_out_documents)
            ]
            name = f"{kind}-{temperature:g}"
            seeds = held_out_seeds(kind, config.held_out_documents)
            assignments = [
                Assignment(text, False, temperature, seed, config.answer_tokens)
                for text, seed in zip(asked, seeds, strict=True)
            ]
            texts = _written(author, config, folder / name, assignments)
            written[kind, temperature] = texts
            if kind in ("chat", "factual", "creative"):
                material += [text for text in map(author.answer, texts) if text] or [kind]
    return written


def held_out_seeds(kind: str, count: int) -> range:
    """Beyond those of a training set, which are drawn under `SEEDS`."""
    first = SEEDS + KINDS.index(kind) * 1000
    return range(first, first + count)


def _written(
    author: Author, config: TrainingConfig, folder: Path, assignments: list[Assignment]
) -> Documents:
    return write_shards(
        author.engine,
        folder,
        assignments,
        shard=config.shard,
        end=author.end,
        tell=author.tell,
    )


def _draw(chance: random.Random, config: TrainingConfig, asked: str) -> Assignment:
    greedy = chance.random() < config.greedy_share
    temperature = 0.0 if greedy else chance.choice(config.temperatures)
    return Assignment(asked, False, temperature, chance.randrange(SEEDS), config.answer_tokens)
