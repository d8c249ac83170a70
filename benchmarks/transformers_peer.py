"""The peer: transformers.generate in a process of its own, one batch per line of standard input.

A line is a JSON object {"prompts": [...], "max_tokens": n}; the answer is {"tokens": n, "seconds":
s}. Greedy, bfloat16, chat template, left padding: what its documentation recommends for batches.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    folder, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        job = json.loads(line)
        chats = [[{"role": "user", "content": prompt}] for prompt in job["prompts"]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        begin = time.perf_counter()
        with torch.inference_mode():
            output = model.generate(
                **batch,
                max_new_tokens=job["max_tokens"],
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        seconds = time.perf_counter() - begin
        completion = output[:, batch["input_ids"].shape[1] :]
        # Everything before the first end-of-text token counts, as in our own usage.
        ended = (completion == tokenizer.eos_token_id).int().cummax(dim=1).values
        sys.stdout.write(json.dumps({"tokens": int((1 - ended).sum()), "seconds": seconds}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
