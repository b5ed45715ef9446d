"""Write an RPN's proposals for model=fast_rcnn: python scripts/proposals.py checkpoint=... output=FILE.npz."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("proposals", "detector.inference.propose.propose_on_dataset")
