// Check and convert the operators' arguments for the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>

#include "gaussian.h"
#include "plan.h"

namespace aligned_rcnn {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Rule parse_rule(const std::string& name) {
  const std::pair<const char*, Rule> rules[] = {{"align", Rule::align},
                                                {"align_half", Rule::align_half},
                                                {"warp", Rule::warp},
                                                {"pool_round", Rule::pool_round},
                                                {"pool_floor", Rule::pool_floor},
                                                {"ps_pool", Rule::ps_pool},
                                                {"ps_pool_rfcn", Rule::ps_pool_rfcn}};
  for (const auto& [known, rule] : rules) {
    if (name == known) {
      return rule;
    }
  }
  STD_TORCH_CHECK(false, "unknown rule: ", name);
}

// Whether a map [N, C, H, W] lies in memory as channels last; the stride of a dimension of one does not matter.
inline bool lies_channels_last(const Tensor& map) {
  const auto sizes = map.sizes(), strides = map.strides();
  const int64_t expected[4] = {sizes[1] * sizes[2] * sizes[3], 1, sizes[1] * sizes[3], sizes[1]};
  for (int d = 0; d < 4; ++d) {
    if (sizes[d] != 1 && strides[d] != expected[d]) {
      return false;
    }
  }
  return true;
}

// Whether the levels are treated as channels last: all are, and at least one is not contiguous NCHW as well.
inline bool is_channels_last(const std::vector<Tensor>& features) {
  bool all = true, strictly = false;
  for (const Tensor& feature : features) {
    all = all && lies_channels_last(feature);
    strictly = strictly || !feature.is_contiguous();
  }
  return all && strictly;
}

inline MemoryFormat format_of(bool channels_last) {
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

template <class T>
struct Scalar;
template <>
struct Scalar<float> {
  static constexpr ScalarType type = ScalarType::Float;
};
template <>
struct Scalar<double> {
  static constexpr ScalarType type = ScalarType::Double;
};

template <class S>
const S* data_of(const Tensor& tensor) {
  return static_cast<const S*>(tensor.const_data_ptr());
}
template <class S>
S* mutable_data_of(const Tensor& tensor) {
  return static_cast<S*>(tensor.mutable_data_ptr());
}

// Boxes and levels in the types that the kernels read. The query points into these tensors, which must outlive it.
template <class T>
struct Arguments {
  Tensor boxes;
  std::optional<Tensor> levels;
  Query<T> query;

  Arguments(const Tensor& given_boxes, const std::optional<Tensor>& given_levels, const std::vector<double>& scales,
            size_t level_count, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
            const std::string& rule)
      : boxes(torch::stable::contiguous(torch::stable::to(given_boxes, Scalar<T>::type))) {
    STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, "boxes must be [K, 5]");
    STD_TORCH_CHECK(scales.size() == level_count, "there must be one scale per level");
    if (given_levels.has_value()) {
      levels = torch::stable::contiguous(torch::stable::to(*given_levels, ScalarType::Long));
      STD_TORCH_CHECK(levels->dim() == 1 && levels->size(0) == boxes.size(0), "levels must be [K]");
    }
    STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, "pooled_height and pooled_width must be at least 1");
    query = {data_of<T>(boxes),
             boxes.size(0),
             levels.has_value() ? data_of<int64_t>(*levels) : nullptr,
             scales,
             parse_rule(rule),
             static_cast<int>(pooled_height),
             static_cast<int>(pooled_width),
             static_cast<int>(std::min<int64_t>(sampling_ratio, 1 << 15))};
  }
};

inline void check_boxes(const Tensor& boxes) {
  STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 4, "boxes must be [N, 4]");
  STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float || boxes.scalar_type() == ScalarType::Double,
                  "boxes must be float32 or float64");
}

// The arguments of `match`, contiguous.
struct MatchArguments {
  Tensor boxes, objects, crowd;

  MatchArguments(const Tensor& given_boxes, const Tensor& given_objects, const Tensor& given_crowd)
      : boxes(torch::stable::contiguous(given_boxes)),
        objects(torch::stable::contiguous(given_objects)),
        crowd(torch::stable::contiguous(given_crowd)) {
    check_boxes(boxes);
    STD_TORCH_CHECK(objects.dim() == 2 && objects.size(1) == 4 && objects.scalar_type() == boxes.scalar_type(),
                    "objects must be [G, 4] of the boxes' dtype");
    STD_TORCH_CHECK(objects.size(0) < INT32_MAX, "there must be fewer than 2^31 - 1 objects");
    STD_TORCH_CHECK(crowd.dim() == 1 && crowd.size(0) == objects.size(0) && crowd.scalar_type() == ScalarType::Bool,
                    "crowd must be bool [G]");
  }

  bool is_double() const { return boxes.scalar_type() == ScalarType::Double; }
};

inline Distance parse_distance(const std::string& name) {
  STD_TORCH_CHECK(name == "wasserstein" || name == "divergence", "unknown distance: ", name);
  return name == "wasserstein" ? Distance::wasserstein : Distance::divergence;
}

// The arguments of `rank`, contiguous.
struct RankArguments {
  Tensor boxes, objects, crowd;
  Distance distance;
  int64_t topk;

  RankArguments(const Tensor& given_boxes, const Tensor& given_objects, const Tensor& given_crowd,
                const std::string& given_distance, int64_t given_topk)
      : boxes(torch::stable::contiguous(given_boxes)),
        objects(torch::stable::contiguous(given_objects)),
        crowd(torch::stable::contiguous(given_crowd)),
        distance(parse_distance(given_distance)),
        topk(given_topk) {
    for (const Tensor& tensor : {boxes, objects}) {
      STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == kGaussianRows, "boxes and objects must be [5, N]");
      STD_TORCH_CHECK(tensor.scalar_type() == boxes.scalar_type(), "objects must be of the boxes' dtype");
    }
    STD_TORCH_CHECK(boxes.scalar_type() == ScalarType::Float || is_double(), "boxes must be float32 or float64");
    STD_TORCH_CHECK(objects.size(1) < INT32_MAX, "there must be fewer than 2^31 - 1 objects");
    STD_TORCH_CHECK(crowd.dim() == 1 && crowd.size(0) == objects.size(1) && crowd.scalar_type() == ScalarType::Bool,
                    "crowd must be bool [G]");
    STD_TORCH_CHECK(0 < topk && topk <= kMaxRanks, "topk must be between 1 and 16");
  }

  bool is_double() const { return boxes.scalar_type() == ScalarType::Double; }
};

// The arguments of `nms`, contiguous.
struct NmsArguments {
  Tensor boxes, order, groups;

  NmsArguments(const Tensor& given_boxes, const Tensor& given_order, const Tensor& given_groups)
      : boxes(torch::stable::contiguous(given_boxes)),
        order(torch::stable::contiguous(given_order)),
        groups(torch::stable::contiguous(given_groups)) {
    check_boxes(boxes);
    for (const Tensor& tensor : {order, groups}) {
      STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == boxes.size(0) && tensor.scalar_type() == ScalarType::Long,
                      "order and groups must be int64 [N]");
    }
  }

  bool is_double() const { return boxes.scalar_type() == ScalarType::Double; }
};

struct Features {
  ScalarType type;
  bool channels_last;
  std::vector<Tensor> tensors;
  std::vector<Level> levels;

  explicit Features(const std::vector<Tensor>& given) {
    STD_TORCH_CHECK(!given.empty(), "features must not be empty");
    type = given[0].scalar_type();
    for (const Tensor& tensor : given) {
      STD_TORCH_CHECK(tensor.dim() == 4 && tensor.scalar_type() == type && tensor.size(1) == given[0].size(1),
                      "features must be [N, C, H, W] of one dtype and one number of channels");
    }
    channels_last = is_channels_last(given);
    for (const Tensor& tensor : given) {
      tensors.push_back(torch::stable::contiguous(tensor, format_of(channels_last)));
      levels.push_back({tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)});
    }
  }
};

inline std::vector<Level> levels_of(const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(!sizes.empty() && sizes.size() % 4 == 0, "sizes must hold N, C, H, W for each level");
  std::vector<Level> levels;
  for (size_t i = 0; i < sizes.size(); i += 4) {
    levels.push_back({sizes[i], sizes[i + 1], sizes[i + 2], sizes[i + 3]});
  }
  return levels;
}

inline Tensor empty(std::vector<int64_t> sizes, ScalarType type, bool channels_last) {
  return torch::stable::empty(sizes, type, std::nullopt, std::nullopt, std::nullopt, format_of(channels_last));
}

// The gradient of an output, or its argmax, in the memory format that the loops read.
inline Tensor output_gradient(const Tensor& given, const Tensor& boxes, int64_t channels, bool channels_last) {
  STD_TORCH_CHECK(given.dim() == 4 && given.size(0) == boxes.size(0) && given.size(1) == channels,
                  "the output's gradient must be [K, C, PH, PW]");
  return torch::stable::contiguous(given, format_of(channels_last));
}

template <class Function>
auto dispatch(ScalarType type, const Function& function) {
  switch (type) {
    case ScalarType::Float:
      return function(float{});
    case ScalarType::Double:
      return function(double{});
    case ScalarType::Half:
      return function(Half{});
    case ScalarType::BFloat16:
      return function(BFloat16{});
    default:
      STD_TORCH_CHECK(false, "features must be float32, float64, float16 or bfloat16");
  }
}

}  // namespace aligned_rcnn
