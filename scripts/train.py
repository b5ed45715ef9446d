"""Train a detector, then evaluate it: python scripts/train.py [pooler=...] [dataset=...] [key=value ...]."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from detector import build, checkpoints
from detector.cli import command, console, finish
from detector.training import fit

MOVABLE = ("data_dir", "workers", "trainer", "logger", "resume", "hydra")
"""What a resumed run may change: where it runs, not what it computes."""
FIXED = ("precision", "accumulate_grad_batches")
"""What of the trainer is what it computes."""


def resumed(config: DictConfig) -> DictConfig:
    """The checkpoint's configuration with the overrides that may change."""
    saved = checkpoints.config_of(checkpoints.read(config.resume))
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith("resume=")]
    keys = [o.lstrip("+~").split("=")[0] for o in overrides]
    refused = {f"trainer.{name}" for name in FIXED}
    fixed = [o for o, key in zip(overrides, keys, strict=True) if key.split(".")[0] not in MOVABLE or key in refused]
    if fixed:
        raise ValueError(f"resume takes the run's own configuration; leave out {' '.join(fixed)}")
    saved.logger = config.logger
    if "trainer" in keys:
        saved.trainer = {**config.trainer, **{name: saved.trainer[name] for name in FIXED}}
    for key in keys:
        if key != "trainer" and not key.startswith("hydra"):
            OmegaConf.update(saved, key, OmegaConf.select(config, key), force_add=True)
    return saved


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
@command
def main(config: DictConfig) -> None:
    """Compose, or continue, a run."""
    build.check_additions("train", HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if config.resume is None:
        fit(build.in_conventions(config, HydraConfig.get().overrides.task), folder, console)
        return
    checkpoint = Path(config.resume).absolute()
    if checkpoint.is_file() and checkpoint.parent.name != "checkpoints":
        raise ValueError(f"resume {config.resume!r}: a run goes on in its own folder, from RUN/checkpoints/*.ckpt")
    config = resumed(config)
    if not any(folder.iterdir()):
        folder.rmdir()
    OmegaConf.set_struct(config, True)
    fit(config, checkpoint.parent.parent, console, resume=checkpoint)


if __name__ == "__main__":
    main()
    finish()
