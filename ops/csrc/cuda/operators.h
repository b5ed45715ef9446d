// The CUDA operators as torch calls them; library.cpp registers them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace aligned_rcnn::cuda {

using torch::stable::Tensor;

Tensor average(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels, std::vector<double> scales,
               int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, std::string rule);

// The stream that the operators' work on this tensor's device goes to. The caller has made the device current.
void* stream_of(const Tensor& tensor);

}  // namespace aligned_rcnn::cuda
