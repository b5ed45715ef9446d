// The CUDA operators; library.cpp registers them, and ../library.cpp says what they compute.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace aligned_rcnn::cuda {

using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;
using Levels = std::optional<Tensor>;
using Scales = std::vector<double>;
using Sizes = std::vector<int64_t>;
using Matched = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Ranked = std::tuple<Tensor, Tensor, Tensor>;

Tensor average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
               int64_t pooled_width, int64_t sampling_ratio, std::string rule);
Tensor ps_average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                  int64_t pooled_width, int64_t sampling_ratio, std::string rule);
std::tuple<Tensor, Tensor> maximum(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                                   int64_t pooled_width, int64_t sampling_ratio, std::string rule);

Tensor average_masks(Tensor pixels, Tensor windows, Tensor offsets, Tensor boxes, Tensor index, int64_t height,
                     int64_t width, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                     std::string rule);

Tensors average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales, int64_t sampling_ratio,
                         std::string rule, bool channels_last);
Tensors ps_average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                            int64_t sampling_ratio, std::string rule, bool channels_last);
Tensors maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                         int64_t sampling_ratio, std::string rule, bool channels_last);

Matched match(Tensor boxes, Tensor objects, Tensor crowd);
Ranked rank(Tensor boxes, Tensor objects, Tensor crowd, std::string distance, int64_t topk);

// The current stream of the tensor's device.
void* stream_of(const Tensor& tensor);

}  // namespace aligned_rcnn::cuda

// Applies X(name) to all operators, to register them.
#define ALIGNED_RCNN_CUDA_OPERATORS(X) \
  X(average)                           \
  X(average_backward)                  \
  X(ps_average) X(ps_average_backward) X(maximum) X(maximum_backward) X(average_masks) X(match) X(rank)
