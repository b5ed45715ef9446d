"""Open a trained detector: a checkpoint of this project, or weights of torchvision or Detectron2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import nn

from detector import weights
from detector.config.compose import compose_config
from detector.weights.checkpoints import checkpoint_config, load_checkpoint, portable_config, read_checkpoint


@dataclass(frozen=True)
class Trained:
    """A trained detector: its configuration and weights."""

    config: DictConfig
    """complete configuration, classes included"""
    load: Callable[[nn.Module], None]
    """loads the weights into the model that `build_model(config)` makes"""
    own: bool = True
    """whether this project trained it"""
    named: bool = True
    """whether its class names are known, not only their number"""


def open_checkpoint(source: str | Path, norm_eps: float | None = None) -> Trained:
    """Open a trained detector.

    Args:
        source: a checkpoint of this project, or a source for `detector.weights.read_weights`.
        norm_eps: epsilon of the norms, for weights of torchvision or Detectron2 only; None: the one that
            `detector.weights.torchvision.convert` assumes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or `norm_eps` is given with a checkpoint of this project.
    """
    if not _is_foreign(str(source)):
        if norm_eps is not None:
            raise ValueError(f"norm_eps={norm_eps}: checkpoint {str(source)!r} has its own epsilon; leave it out")
        content = read_checkpoint(source)
        return Trained(checkpoint_config(content), lambda model: load_checkpoint(model, content, str(source)))
    pretrained = weights.read_weights(str(source))
    if not pretrained.conventions:
        raise ValueError(f"checkpoint {str(source)!r} is one of this project: rename it to *.ckpt")
    config = compose_config([*pretrained.conventions, *([] if norm_eps is None else [f"norm.eps={norm_eps}"])])
    config.trainer.precision = "32-true"  # these weights were published for it
    names = [name for name in pretrained.classes or [] if name != weights.PLACEHOLDER]
    config.classes = names or [str(i) for i in range(pretrained.num_classes)]
    config.num_classes = len(config.classes)
    # Resolved, as in a checkpoint of this project, so that the model does not depend on the dataset it is evaluated on.
    config = OmegaConf.create(portable_config(config))
    return Trained(config, lambda model: _load_all(model, pretrained, config.classes), own=False, named=bool(names))


def _is_foreign(source: str) -> bool:
    return source.startswith("torchvision:") or source.endswith((".pkl", ".pth"))


def _load_all(model: nn.Module, pretrained: weights.PretrainedWeights, classes: Sequence[str]) -> None:
    named = pretrained if pretrained.classes else replace(pretrained, classes=list(classes))
    report = weights.load_weights(model, named, list(classes))
    if report.reinitialized or report.added or report.new:
        raise ValueError(f"{report}: train it for these classes first (train.py weights=...)")
