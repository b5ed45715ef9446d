"""Check the installation and the machine, and say how to mend what is wrong: python scripts/doctor.py [--build]."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="The exit code is 1 if there is an error, else 0.")
    parser.add_argument("--build", action="store_true", help="compile the operators, if they are not compiled yet")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="where runs are written (outputs)"
    )
    arguments = parser.parse_args()
    spec = find_spec("detector")
    # Whether the other scripts find this project is one of the things to find out.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from detector.doctor.run import main

    sys.exit(main(None if spec is None else spec.origin, arguments.build, arguments.output))
