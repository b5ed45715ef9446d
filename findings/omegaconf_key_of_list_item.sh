#!/usr/bin/env bash
# omegaconf 2.3.1: the full key of a node in a list is written without brackets (`metrics1`) where the node itself is asked
# (`_get_full_key(None)`, which Hydra's messages use), and with them (`metrics[1].threshold`) where a key below it is asked.
# Seen: dataset.metrics1 | dataset.metrics[1].threshold | {'dataset.metrics[1].threshold'}
# So a message made of the first names a key that does not exist, and that cannot be overridden under that name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet omegaconf==2.3.1
"$folder/venv/bin/python" - <<'PY'
from omegaconf import OmegaConf

config = OmegaConf.create({"dataset": {"metrics": [{"name": "a"}, {"name": "b", "threshold": "???"}]}})
node = config.dataset.metrics[1]
found = node._get_full_key(None), node._get_full_key("threshold"), OmegaConf.missing_keys(config)
print(*found, sep=" | ")
assert found == ("dataset.metrics1", "dataset.metrics[1].threshold", {"dataset.metrics[1].threshold"})
PY
