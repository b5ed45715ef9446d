import pytest
import torch

from detector.models.anchors import Anchors


def test_by_hand() -> None:
    anchors = Anchors([8, 16], [0.5, 1.0, 2.0], [4, 8])
    fine, coarse = anchors([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)], (8, 12))
    assert fine.shape == (2 * 3 * 3, 4)
    assert fine[1].tolist() == [-4, -4, 4, 4]  # square, first cell
    assert fine[4].tolist() == [0, -4, 8, 4]  # the next cell in the row
    assert fine[10].tolist() == [-4, 0, 4, 8]  # the next row
    wide = coarse[0]  # ratio height / width = 0.5, area 16²
    assert float((wide[3] - wide[1]) / (wide[2] - wide[0])) == pytest.approx(0.5)
    assert float((wide[3] - wide[1]) * (wide[2] - wide[0])) == pytest.approx(256)


def test_offset_is_in_strides() -> None:
    (level,) = Anchors([8], [1.0], [16], offset=0.5)([torch.zeros(1, 1, 1, 2)], (16, 32))
    assert level.tolist() == [[4, 4, 12, 12], [20, 4, 28, 12]]


def test_several_sizes_on_one_level() -> None:
    anchors = Anchors([[32, 64, 128]], [0.5, 1.0, 2.0], [16])
    assert anchors.per_cell == 9
    assert anchors([torch.zeros(1, 1, 4, 5)], (64, 80))[0].shape == (4 * 5 * 9, 4)


@pytest.mark.parametrize(("sizes", "message"), [([8], "each of the 2 levels"), ([[8], [16, 32]], "same number")])
def test_sizes_must_fit_the_levels(sizes: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Anchors(sizes, [1.0], [4, 8])


def test_torchvision_s_ways() -> None:
    (plain,) = Anchors([32], [0.5], [64])([torch.zeros(1, 1, 1, 13)], (64, 800))
    (own,) = Anchors([32], [0.5], [64], rounded=True, measured=True)([torch.zeros(1, 1, 1, 13)], (64, 800))
    assert plain[1].tolist() == pytest.approx([64 - 22.627, -11.314, 64 + 22.627, 11.314], abs=1e-3)
    assert own[1].tolist() == [61 - 23, -11, 61 + 23, 11]  # 800 // 13 = 61
