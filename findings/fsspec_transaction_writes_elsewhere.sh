#!/usr/bin/env bash
# fsspec 2026.9.0: a file that is written in a transaction of the local file system, as Lightning (2.6.6) writes its
# checkpoints, lies in the system's temporary folder until the end, and not beside its target, and is then moved. Where
# that folder is on another disk the move is a copy, which a crash can cut in half, over a file that was whole before; and
# a small /tmp is full although the target's disk is not.
# Seen: while it is written: in TMPDIR True, beside the target False; the old content is there: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fsspec==2026.9.0
mkdir "$folder/elsewhere" "$folder/run"
cd "$folder"
TMPDIR=$folder/elsewhere venv/bin/python - <<'PY'
import os
from pathlib import Path

import fsspec

target = Path("run/last.ckpt").absolute()
target.write_bytes(b"old")
system, path = fsspec.core.url_to_fs(str(target))
with system.transaction:
    with system.open(path, "wb") as file:
        file.write(b"new" * 100_000)
        file.flush()
    there = [sum(entry.stat().st_size for entry in os.scandir(name)) > 200_000 for name in ("elsewhere", "run")]
    print(f"while it is written: in TMPDIR {there[0]}, beside the target {there[1]}; ", end="")
    kept = target.read_bytes() == b"old"
    print(f"the old content is there: {kept}")
assert there == [True, False]
assert kept
assert target.read_bytes() == b"new" * 100_000
PY
