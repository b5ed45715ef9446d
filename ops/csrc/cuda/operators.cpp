// The CUDA operators: from tensors to launches. No CUDA header is needed, and nothing waits for the device.
#include "operators.h"

#include "pyramid.h"

namespace aligned_rcnn::cuda {
namespace {

template <class S>
Tensor average(const Features& features, const Tensor& boxes, const std::optional<Tensor>& levels,
               const std::vector<double>& scales, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
               const std::string& rule) {
  using T = compute_t<S>;
  check_device(boxes, features.tensors[0], "boxes");
  if (levels.has_value()) {
    check_device(*levels, features.tensors[0], "levels");
  }
  const Arguments<T> arguments(boxes, levels, scales, features.levels.size(), pooled_height, pooled_width,
                               sampling_ratio, rule);
  const Tensor& first = features.tensors[0];
  const std::vector<int64_t> sizes{arguments.query.count, features.levels[0].channels, pooled_height, pooled_width};
  void* stream = stream_of(first);
  const auto maps = channels_last_of(features.tensors, features.channels_last, sizeof(S), stream);
  const Pyramid pyramid = pyramid_of<S>(maps, scales);
  const Tensor pooled = empty_on(first, sizes, features.type, true);
  if (sizes[0] * sizes[1] > 0) {
    Launches<S>::average(pyramid, query_of(arguments.query), mutable_data_of<S>(pooled), stream);
  }
  if (features.channels_last) {
    return pooled;
  }
  const Tensor output = empty_on(first, sizes, features.type, false);
  transpose_all({pooled}, {output}, false, sizeof(S), stream);
  return output;
}

}  // namespace

Tensor average(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels, std::vector<double> scales,
               int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  check_levels(features.size());
  for (const Tensor& feature : features) {
    check_device(feature, features[0], "features");
  }
  const Features maps(features);
  return dispatch(maps.type, [&](auto type) {
    return average<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

}  // namespace aligned_rcnn::cuda
