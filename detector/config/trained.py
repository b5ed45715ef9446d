"""Open a trained detector: a checkpoint of this project, or weights of torchvision's or Detectron2's."""

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
    """The configuration of a trained detector, and its weights."""

    config: DictConfig
    """complete, classes included"""
    load: Callable[[nn.Module], None]
    """loads the weights into the model that `build_model(config)` makes"""
    own: bool = True
    """whether this project trained it"""
    named: bool = True
    """whether the names of its classes are known, and not only their number"""


def open_checkpoint(source: str | Path, norm_eps: float | None = None) -> Trained:
    """Open a checkpoint.

    Args:
        source: of this project, or as `detector.weights.read_weights` takes it.
        norm_eps: the epsilon of the norms in weights of torchvision's or Detectron2's, where it differs from the one
            assumed for their file (`detector.weights.torchvision.convert`); None: the one assumed.

    Raises:
        FileNotFoundError, ValueError: it is not there, or cannot be read; `norm_eps` with a checkpoint of this project.
    """
    if not _is_foreign(str(source)):
        if norm_eps is not None:
            raise ValueError(f"norm_eps={norm_eps}: checkpoint {str(source)!r} has its own; leave it out")
        content = read_checkpoint(source)
        return Trained(checkpoint_config(content), lambda model: load_checkpoint(model, content, str(source)))
    pretrained = weights.read_weights(str(source))
    if not pretrained.conventions:
        raise ValueError(f"checkpoint {str(source)!r} is one of this project's: give its name the suffix .ckpt")
    config = compose_config([*pretrained.conventions, *([] if norm_eps is None else [f"norm.eps={norm_eps}"])])
    config.trainer.precision = "32-true"  # the precision they were published for
    names = [name for name in pretrained.classes or [] if name != weights.PLACEHOLDER]
    config.classes = names or [str(i) for i in range(pretrained.num_classes)]
    config.num_classes = len(config.classes)
    # Resolved, as in a checkpoint of this project: the model does not depend on the dataset it is evaluated on.
    config = OmegaConf.create(portable_config(config))
    return Trained(config, lambda model: _load_all(model, pretrained, config.classes), own=False, named=bool(names))


def _is_foreign(source: str) -> bool:
    return source.startswith("torchvision:") or source.endswith((".pkl", ".pth"))


def _load_all(model: nn.Module, pretrained: weights.PretrainedWeights, classes: Sequence[str]) -> None:
    named = pretrained if pretrained.classes else replace(pretrained, classes=list(classes))
    report = weights.load_weights(model, named, list(classes))
    if report.reinitialized:
        raise ValueError(f"{report}: it cannot tell these classes apart without being trained for them")
