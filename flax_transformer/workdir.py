"""What lies in the work directory of a run, by name.

runs/base/
  config.json          the settings of the run
  tokenizer.model      its vocabulary
  checkpoints/STEP/    the latest states, from which it resumes
  best/STEP/           the parameters with the highest validation BLEU
  metrics.jsonl        what was measured, one JSON object per line
  tensorboard/         the same as curves
  evaluation/          translations and scores of test sets
  diagnosis.json       what `--diagnose` found
  inspection/          pictures of what is inside the model
  lock                 held by the process that trains here
"""

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.model"
CHECKPOINTS = "checkpoints"
BEST = "best"
METRICS_FILE = "metrics.jsonl"
CURVES = "tensorboard"
EVALUATION = "evaluation"
DIAGNOSIS_FILE = "diagnosis.json"
INSPECTION = "inspection"
LOCK_FILE = "lock"
