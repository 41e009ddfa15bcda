"""Scores by lm-eval of models in folders: python lm_eval_scores.py FOLDER_OF_THE_TASK TASK MODEL ...

MODEL: lm-eval's model_args in JSON. Prints one JSON object for each model, after what lm-eval prints. A process of its own, because lm-eval lies apart from
the other packages: see requirements/checks.txt.
"""

import json
import sys

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

if __name__ == "__main__":
    folder, task, *models = sys.argv[1:]
    for model in models:
        done = simple_evaluate(
            "hf",
            model_args=json.loads(model),
            tasks=[task],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            apply_chat_template=True,
            batch_size=4,
            device="cpu",
            bootstrap_iters=0,
        )
        found = done["results"][task]
        print(json.dumps({"items": found["sample_len"], "exact_match": float(found["exact_match,none"])}))
