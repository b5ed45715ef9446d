"""The average of the weights: its values, its validation, its checkpoints."""

from pathlib import Path

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detector.training.averaging import TRAINED, WeightAverage
from detector.training.optim import Muon, cosine
from detector.training.task import DetectionTask
from detector.types import Batch
from tests.conftest import random_batch, small_model

State = dict[str, Tensor]


class Watched(DetectionTask):
    """Note the weights after each step, and those that are validated."""

    def __init__(self, decay: float, accumulate: int = 1, steps: int = 6) -> None:
        super().__init__(
            small_model(),
            optimizer=lambda groups: Muon(groups, fused=True),
            scheduler=lambda optimizer: cosine(optimizer, 6, warmup=0),
        )
        self.average = WeightAverage(decay)
        self.after: list[State] = []
        self.seen: list[State] = []
        self.trainer_ = lightning.Trainer(
            accelerator="cpu",
            max_steps=steps,
            val_check_interval=3 * accumulate,
            check_val_every_n_epoch=None,
            accumulate_grad_batches=accumulate,
            callbacks=[self.average],
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.after.append(state(self))

    def on_validation_epoch_start(self) -> None:
        self.seen.append(state(self))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        pass

    def fit(self) -> "Watched":
        batches = [random_batch(2, 1, size=(64, 64), seed=i) for i in range(6 * self.trainer_.accumulate_grad_batches)]
        train, val = (DataLoader(part, batch_size=None) for part in (batches, batches[:1]))
        self.trainer_.fit(self, train, val)
        return self


pytestmark = pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not", "ignore:.*not resumable")


def state(task: DetectionTask) -> State:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def expected(decay: float, states: list[State]) -> State:
    """Average by the definition, in float64."""
    average = {name: value.double() for name, value in small_model().state_dict().items()}
    for step, weights in enumerate(states, 1):
        d = min(decay, (1 + step) / (10 + step))
        average = {name: d * value + (1 - d) * weights[name] for name, value in average.items()}
    return average


@pytest.mark.parametrize(("decay", "accumulate"), [(0.999, 1), (0.25, 2)])
def test_the_average_is_that_of_the_definition_and_is_validated(decay: float, accumulate: int) -> None:
    task = Watched(decay, accumulate).fit()
    assert len(task.after) == 6
    for step, validated in zip((3, 6), task.seen, strict=True):
        for name, value in expected(decay, task.after[:step]).items():
            if validated[name].is_floating_point():
                torch.testing.assert_close(validated[name].double(), value, rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(validated[name], task.after[step - 1][name])
    assert all(torch.equal(value, task.after[-1][name]) for name, value in state(task).items())  # training went on
    assert not torch.equal(
        task.after[2]["backbone.body.layer1.0.conv1.weight"], task.seen[0]["backbone.body.layer1.0.conv1.weight"]
    )


def test_validating_the_average_leaves_training_as_it_is() -> None:
    averaged, plain = Watched(0.9).fit(), Watched(0.9)
    plain.trainer_.callbacks.remove(plain.average)
    plain.fit()
    for one, other in zip(averaged.after, plain.after, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_checkpoint_holds_both(tmp_path: Path) -> None:
    task = Watched(0.9, steps=3).fit()
    task.trainer_.save_checkpoint(tmp_path / "part.ckpt")
    content = torch.load(tmp_path / "part.ckpt", weights_only=True)
    for kept, states in ((content["state_dict"], task.seen), (content[TRAINED], task.after)):
        assert kept.keys() == {f"model.{name}" for name in states[-1]}
        assert all(torch.equal(kept[f"model.{name}"], value) for name, value in states[-1].items())
    other = Watched(0.9)
    other.average.on_load_checkpoint(other.trainer_, other, content)
    assert all(torch.equal(value, task.after[-1][name]) for name, value in state(other).items())
    assert all(torch.equal(value, task.seen[-1][name]) for name, value in other.average.average.items())
