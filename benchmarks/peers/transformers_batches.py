"""The program in the peer's own environment: one batch per line of standard input.

A line is {"prompts": [...], "max_tokens": n, "ignore_eos": bool}; the answer is {"answers": [...]}
with the fields of `Answer`. Greedy, bfloat16, chat template, left padding: what the library's
documentation recommends for batches. The first line out, {}, says that the model is loaded.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList


class FirstToken(StoppingCriteria):
    """Stops nothing: asked after every token, it keeps the time of the first."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        self.at = time.perf_counter() if self.at is None else self.at
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def answer(model: Any, tokenizer: Any, job: dict[str, Any]) -> list[dict[str, Any]]:
    begin = time.perf_counter()
    batch = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in job["prompts"]],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    )
    first = FirstToken()
    with torch.inference_mode():
        output = model.generate(
            **batch,
            max_new_tokens=job["max_tokens"],
            min_new_tokens=job["max_tokens"] if job["ignore_eos"] else 0,
            do_sample=False,
            temperature=None,
            top_p=None,
            pad_token_id=tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([first]),
        )
    total_s = time.perf_counter() - begin
    completion = output[:, batch["input_ids"].shape[1] :]
    # Everything before the first end-of-text token counts, as in Wetink's own usage.
    said = (completion == tokenizer.eos_token_id).int().cummax(dim=1).values == 0
    assert first.at is not None
    return [
        {
            "text": tokenizer.decode(completion[row], skip_special_tokens=True),
            "prompt_tokens": int(batch["attention_mask"][row].sum()),
            "tokens": int(said[row].sum()),
            "first_s": first.at - begin,
            "total_s": total_s,
        }
        for row in range(len(completion))
    ]


def say(data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(data) + "\n")
    sys.stdout.flush()


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    say({})
    for line in sys.stdin:
        say({"answers": answer(model, tokenizer, json.loads(line))})


if __name__ == "__main__":
    main()
