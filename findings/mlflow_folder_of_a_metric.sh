#!/usr/bin/env bash
# mlflow-skinny 3.17.2: a run in a folder (file store) takes a metric "loss", and metrics with a slash such as "loss/class",
# but not both in one run: the first is a file where the second needs a folder. A database (sqlite) takes both. Lightning's
# MLFlowLogger (2.6.6) without arguments chooses a folder, and names with slashes are common in detection, as in TensorBoard.
# Seen: a folder: NotADirectoryError [Errno 20]; sqlite: ['loss', 'loss/class']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1
cd "$folder"
MLFLOW_ALLOW_FILE_STORE=true MLFLOW_DISABLE_TELEMETRY=true venv/bin/python - <<'PY' 2>/dev/null
from mlflow import MlflowClient


def names(store: str) -> list[str]:
    client = MlflowClient(store)
    run = client.create_run(client.create_experiment("e")).info.run_id
    for name in ("loss", "loss/class"):
        client.log_metric(run, name, 1.0)
    return sorted(client.get_run(run).data.metrics)


try:
    folder = names("runs")
except NotADirectoryError as error:
    folder = f"NotADirectoryError [Errno {error.errno}]"
database = names("sqlite:///runs.db")
print(f"a folder: {folder}; sqlite: {database}")
assert folder == "NotADirectoryError [Errno 20]"
assert database == ["loss", "loss/class"]
PY
