#!/usr/bin/env bash
# hydra-core 1.3.8: a folder of configurations in a package without __init__.py (a namespace package, as Python imports it),
# named by hydra.searchpath=[pkg://mypackage.configs], is reported as "not available" by a UserWarning, and is used all the
# same: its groups compose. With __init__.py in that folder (the package's own is not enough) there is no warning.
# Seen: without: UserWarning: provider=hydra.searchpath in command-line, path=mypackage.configs is not available.
#                composed: {'x': 1, 'db': {'name': 'mine'}}
#       with:    composed: {'x': 1, 'db': {'name': 'mine'}}
# So a program that turns warnings into errors refuses configurations that work: packages of configurations want __init__.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8 omegaconf==2.3.1
mkdir -p mypackage/configs/db conf
touch mypackage/__init__.py
echo "name: mine" > mypackage/configs/db/mine.yaml
echo "x: 1" > conf/config.yaml
cat > app.py <<'PY'
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    print("composed:", dict(config))

main()
PY
run() { PYTHONPATH=. venv/bin/python app.py 'hydra.searchpath=[pkg://mypackage.configs]' +db=mine hydra.run.dir=. hydra.output_subdir=null 2>&1; }
without=$(run)
touch mypackage/configs/__init__.py
with=$(run)
echo "$without"
echo "$with"
composed="composed: {'x': 1, 'db': {'name': 'mine'}}"
grep -qF "path=mypackage.configs is not available" <<< "$without"
grep -qF "$composed" <<< "$without"
grep -qF "$composed" <<< "$with"
! grep -q "not available" <<< "$with"
