#!/usr/bin/env bash
# omegaconf 2.3.1: Ctrl-C while OmegaConf.create or OmegaConf.load works can surface as ConfigKeyError instead
# of KeyboardInterrupt. `flag_override` restores flags in a `finally`, and meets an item that the interrupted work has left
# half-made: "'NoneType' object has no attribute '_invalidate_flags_cache'". The AttributeError takes the place of the
# KeyboardInterrupt and is reworded to a bad key of the valid configuration.
# Seen (a configuration of nested lists created 2,000 times, Ctrl-C after a random time in each):
#   2.3.1 ConfigKeyError 1530, KeyboardInterrupt 470     (the counts vary with the machine)
# So a program that catches OmegaConf's errors to report a bad file, or to go on with the next one, swallows the user's Ctrl-C.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet omegaconf==2.3.1
cat > interrupt.py <<'PY'
import collections
import random
import signal
import time
from importlib.metadata import version

from omegaconf import OmegaConf

content = {"groups": {f"g{i}": {"sizes": [[1, 2, 3], [4, 5, 6]], "names": ["a", "b", "c"]} for i in range(20)}}


def interrupt(*_):
    raise KeyboardInterrupt


signal.signal(signal.SIGALRM, interrupt)
began = time.perf_counter()
OmegaConf.create(content)
duration = time.perf_counter() - began
random.seed(0)
seen = collections.Counter()
while sum(seen.values()) < 2000:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.05, 0.95) * duration)
        OmegaConf.create(content)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:
        seen[type(error).__name__] += 1
print(version("omegaconf"), ", ".join(f"{name} {count}" for name, count in seen.most_common()))
assert set(seen) == {"KeyboardInterrupt", "ConfigKeyError"}, seen
PY
venv/bin/python interrupt.py
