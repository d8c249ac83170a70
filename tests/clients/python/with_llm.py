"""llm: a model from its configuration file, whole and streamed."""

import json
import os
import sys
import tempfile
from pathlib import Path

BASE, MODEL, PROMPT, TOKENS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

with tempfile.TemporaryDirectory() as folder:
    os.environ["LLM_USER_PATH"] = folder
    entry = {"model_id": "here", "model_name": MODEL, "api_base": BASE, "api_key_name": "none"}
    path = Path(folder) / "extra-openai-models.yaml"
    path.write_text(json.dumps([entry]), encoding="utf-8")
    import llm

    model = llm.get_model("here")
    options = {"temperature": 0, "max_tokens": TOKENS, "key": "none"}
    whole = model.prompt(PROMPT, stream=False, **options).text()
    streamed = "".join(model.prompt(PROMPT, stream=True, **options))
json.dump({"texts": [whole, streamed]}, sys.stdout)
