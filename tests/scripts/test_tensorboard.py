"""What a training writes to TensorBoard."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.scripts.conftest import Run


def test_a_training_writes_them(run: Run) -> None:
    (events,) = (run.folder / "tensorboard").glob("events*")
    board = EventAccumulator(str(events), size_guidance={"images": 0, "tensors": 0})
    board.Reload()
    pictures = board.Images("detections")
    assert [picture.step for picture in pictures] == [3, 6]
    assert min(pictures[0].width, pictures[0].height) > 300
    tags = board.Tags()["tensors"]
    assert {"box_AP50/ellipse", "mask_AP50/ellipse"} <= set(tags)
    assert [event.step for event in board.Tensors("box_AP50/ellipse")] == [3, 6]
