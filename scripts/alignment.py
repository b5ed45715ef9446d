"""Draw and measure alignment: python scripts/alignment.py [image=FILE box=[x1,y1,x2,y2] | dataset=... | runs=[A,B]]."""

from detector.config.command_line import run

if __name__ == "__main__":
    run("alignment", "detector.alignment.commands.run_command")
