// Check and convert the arguments of `average_masks`.
#pragma once

#include "arguments.h"
#include "masks.h"

namespace aligned_rcnn {

// The query points into these tensors, which must outlive it.
struct MaskArguments {
  Tensor pixels, windows, offsets, boxes, index;
  MaskQuery query;

  MaskArguments(const Tensor& given_pixels, const Tensor& given_windows, const Tensor& given_offsets,
                const Tensor& given_boxes, const Tensor& given_index, int64_t height, int64_t width,
                int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, const std::string& rule)
      : pixels(torch::stable::contiguous(given_pixels)),
        windows(torch::stable::contiguous(torch::stable::to(given_windows, ScalarType::Long))),
        offsets(torch::stable::contiguous(torch::stable::to(given_offsets, ScalarType::Long))),
        boxes(torch::stable::contiguous(torch::stable::to(given_boxes, ScalarType::Float))),
        index(torch::stable::contiguous(torch::stable::to(given_index, ScalarType::Long))) {
    STD_TORCH_CHECK(pixels.dim() == 1 && pixels.scalar_type() == ScalarType::Bool, "pixels must be bool [S]");
    STD_TORCH_CHECK(windows.dim() == 2 && windows.size(1) == 4, "windows must be [G, 4]");
    STD_TORCH_CHECK(offsets.dim() == 1 && offsets.size(0) == windows.size(0), "offsets must be [G]");
    STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "boxes must be [R, 4]");
    STD_TORCH_CHECK(index.dim() == 1 && index.size(0) == boxes.size(0), "index must be [R]");
    STD_TORCH_CHECK(height > 0 && width > 0 && height < INT32_MAX && width < INT32_MAX, "the image must have pixels");
    STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, "pooled_height and pooled_width must be at least 1");
    query = {data_of<uint8_t>(pixels),
             pixels.size(0),
             data_of<int64_t>(windows),
             data_of<int64_t>(offsets),
             windows.size(0),
             data_of<float>(boxes),
             data_of<int64_t>(index),
             boxes.size(0),
             parse_rule(rule),
             static_cast<int>(height),
             static_cast<int>(width),
             static_cast<int>(pooled_height),
             static_cast<int>(pooled_width),
             static_cast<int>(std::min<int64_t>(sampling_ratio, 1 << 15))};
  }
};

}  // namespace aligned_rcnn
