"""Check the installation and the machine, and say how to mend what is wrong: python scripts/doctor.py [--build]."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python scripts/doctor.py",
        description=__doc__,
        epilog="The exit code is 1 if there is an error, else 0.",
    )
    parser.add_argument("--build", action="store_true", help="compile the operators, if they are not compiled yet")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="where runs are written (outputs)"
    )
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    origin: str | None = str(root / "detector" / "__init__.py")
    if (root / "pyproject.toml").is_file():
        # In a clone, whether the other scripts find this project is one of the things to find out.
        spec = find_spec("detector")
        origin = None if spec is None else spec.origin
        sys.path.insert(0, str(root))
    from detector.doctor.run import main

    sys.exit(main(origin, arguments.build, arguments.output))
