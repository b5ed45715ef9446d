"""Run a study of many runs: python scripts/ablate.py study=pooler [hydra/launcher=joblib] [key=value ...].

Compare two runs: python scripts/ablate.py --compare RUN RUN [--output FOLDER] [--trust PACKAGE ...].
"""

import sys

from detector.ablation.arguments import split_arguments
from detector.config.command_line import run

if __name__ == "__main__":
    if "--compare" in sys.argv:
        from detector.ablation.cli import compare_runs

        sys.exit(compare_runs(sys.argv[1:]))
    run("ablate", "detector.ablation.cli.ablate", prepare=split_arguments)
