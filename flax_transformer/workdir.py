"""What lies in the work directory of a run, by name.

runs/base/
  config.json          the settings of the run
  tokenizer.model      its vocabulary
  model.safetensors    in place of checkpoints, where a model came without its run
  checkpoints/STEP/    the latest states, from which it resumes
  best/STEP/           the parameters with the highest validation BLEU
  metrics.jsonl        what was measured, one JSON object per line
  tensorboard/         the same as curves
  evaluation/          translations and scores of test sets
  diagnosis.json       what `--diagnose` found
  heads.json, .png     of a pruned model: what its heads were worth, and which are left
  inspection/          pictures of what is inside the model
  lock                 held by the process that trains here
"""

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.model"
PARAMETERS_FILE = "model.safetensors"
CHECKPOINTS = "checkpoints"
BEST = "best"
METRICS_FILE = "metrics.jsonl"
CURVES = "tensorboard"
EVALUATION = "evaluation"
DIAGNOSIS_FILE = "diagnosis.json"
HEADS_FILE = "heads.json"
HEADS_PICTURE = "heads.png"
INSPECTION = "inspection"
LOCK_FILE = "lock"
