// The CUDA operators as torch calls them; library.cpp registers them. See ../library.cpp for what they compute.
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

Tensor average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
               int64_t pooled_width, int64_t sampling_ratio, std::string rule);
Tensor ps_average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                  int64_t pooled_width, int64_t sampling_ratio, std::string rule);
std::tuple<Tensor, Tensor> maximum(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                                   int64_t pooled_width, int64_t sampling_ratio, std::string rule);

Tensors average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales, int64_t sampling_ratio,
                         std::string rule, bool channels_last);
Tensors ps_average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                            int64_t sampling_ratio, std::string rule, bool channels_last);
Tensors maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                         int64_t sampling_ratio, std::string rule, bool channels_last);

// The stream that the operators' work on this tensor's device goes to.
void* stream_of(const Tensor& tensor);

}  // namespace aligned_rcnn::cuda

// All operators, for whoever registers them: X(name).
#define ALIGNED_RCNN_CUDA_OPERATORS(X) \
  X(average) X(average_backward) X(ps_average) X(ps_average_backward) X(maximum) X(maximum_backward)
