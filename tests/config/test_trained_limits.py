"""The limits of a trained detector, which are given at inference: detections, proposals, and NMS."""

import pytest
from omegaconf import DictConfig, OmegaConf

from detector.config.given import given_dataset, set_detections, set_nms, set_proposals
from detector.config.overrides import allow_new_keys
from tests.config.test_given import OWN, plain, trained
from tests.conftest import compose_config


def test_the_number_of_detections_reaches_the_model() -> None:
    def after(*overrides: str, **changes: int | None) -> tuple[int, int]:
        before = trained()
        before.dataset.detections = changes.get("dataset", 100)
        before.model.heads.select.topk_per_image = changes.get("model", 100)
        final = before.copy()
        own = ["checkpoint=last.ckpt", *overrides]
        config = compose_config(*allow_new_keys(own), name="evaluate")
        if overrides:
            final.dataset, _ = given_dataset(final, config, own)
        set_detections(final, before, config, own)
        return final.dataset.detections, final.model.heads.select.topk_per_image

    assert after() == (100, 100)
    assert after("dataset.detections=300") == (300, 300)
    assert after("dataset.detections=50", dataset=50, model=300) == (50, 50)
    assert after("dataset=coco", dataset=None, model=300) == (300, 300)
    for wrong in ("null", "0", "2.5", "true"):
        with pytest.raises(ValueError, match=r"dataset\.detections must be a number of 1 or more"):
            after(f"dataset.detections={wrong}")
    own = OmegaConf.create({"dataset": {"detections": 100}, "model": {"heads": {}}})
    set_detections(own.copy(), own, OmegaConf.create({"detections": None}), [])
    with pytest.raises(ValueError, match=r"detections=5: the model has no heads\.select\.topk_per_image"):
        set_detections(own.copy(), own, OmegaConf.create({"detections": 5}), [])


@pytest.mark.parametrize("script", ["evaluate", "predict"])
def test_the_limits_of_the_rpn_reach_the_model(script: str) -> None:
    """Those at inference; those of a frozen RPN of another run, too."""

    def after(before: DictConfig, *overrides: str) -> DictConfig:
        final = before.copy()
        more = ["input=photo.jpg"] if script == "predict" else []
        set_proposals(final, compose_config("checkpoint=last.ckpt", *more, *overrides, name=script))
        return final

    own = trained()
    assert after(own) == own
    changed = after(own, "pre_nms_topk=3000", "post_nms_topk=2000").model.proposer
    assert plain(changed.test) == plain(own.model.proposer.test) | {"pre_nms_topk": 3000, "post_nms_topk": 2000}
    assert changed.train == own.model.proposer.train
    assert after(own, "post_nms_topk=7").model.proposer.test.pre_nms_topk == own.model.proposer.test.pre_nms_topk
    frozen = OmegaConf.create({"model": {"proposer": {"rpn": own.model.proposer}}})
    assert after(frozen, "post_nms_topk=7").model.proposer.rpn.test.post_nms_topk == 7
    for wrong in ("0", "2.5", "true", "many"):
        with pytest.raises(ValueError, match="post_nms_topk must be a number of 1 or more, not"):
            after(own, f"post_nms_topk={wrong}")
    with pytest.raises(ValueError, match="pre_nms_topk=5: the model has no RPN, but takes given proposals"):
        after(trained(*OWN, "model=fast_rcnn", "proposals=a.npz"), "pre_nms_topk=5")


@pytest.mark.parametrize("model", ["faster_rcnn", "rfcn", "cascade_rcnn"])
def test_the_threshold_of_nms_reaches_the_model(model: str) -> None:
    before = trained(*OWN, f"model={model}")

    def after(*overrides: str) -> float:
        final = before.copy()
        set_nms(final, compose_config("checkpoint=last.ckpt", *overrides, name="evaluate"))
        thresh: float = final.model.heads.select.nms_thresh
        return thresh

    assert after() == 0.5
    assert after("nms_thresh=0.4") == 0.4
    for wrong in ("-0.1", "40", "true", "a"):
        with pytest.raises(ValueError, match=r"nms_thresh must be an IoU from 0 to 1, not"):
            after(f"nms_thresh={wrong}")
    with pytest.raises(ValueError, match=r"nms_thresh=0\.4: the model has no heads\.select\.nms_thresh"):
        set_nms(OmegaConf.create({"model": {"heads": {}}}), OmegaConf.create({"nms_thresh": 0.4}))
