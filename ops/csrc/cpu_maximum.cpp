// The operator `maximum` and its gradient, on the CPU.
#include "loops.h"

namespace aligned_rcnn {
namespace {

template <class S>
std::tuple<Tensor, Tensor> maximum(const Features& features, const Tensor& boxes,
                                   const std::optional<Tensor>& roi_levels, const std::vector<double>& scales,
                                   int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                                   const std::string& rule) {
  using T = compute_t<S>;
  const Arguments<T> arguments(boxes, roi_levels, scales, features.levels.size(), pooled_height, pooled_width,
                               sampling_ratio, rule);
  const int64_t channels = features.levels[0].channels, bins = pooled_height * pooled_width;
  const std::vector<int64_t> sizes{arguments.query.count, channels, pooled_height, pooled_width};
  Tensor output = empty(sizes, features.type, features.channels_last);
  Tensor argmax = empty(sizes, ScalarType::Int, features.channels_last);
  S* out = mutable_data_of<S>(output);
  int32_t* arg = mutable_data_of<int32_t>(argmax);
  const auto sites = find_sites(arguments.query, features.levels);
  const Groups groups = group_by_map(sites, features.levels);
  const auto rows = make_spots(arguments.query, features.levels, sites, Side::rows);
  const auto cols = make_spots(arguments.query, features.levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  const bool interpolates = samples_points(arguments.query.rule);
  fill_outputs_without_map(sites, channels * bins, S{}, out);
  fill_outputs_without_map(sites, channels * bins, -1, arg);
  if (features.channels_last) {
    for_each_roi(groups, rows.table, cols.table, [&](int64_t k) {
      const int64_t offset = k * channels * bins;
      kernel.maximum_nhwc(map_of<S>(features, sites[k]), features.levels[sites[k].level].shape(), rows.of(k),
                          cols.of(k), interpolates, out + offset, arg + offset);
    });
  } else {
    for_each_plane<S>(features, groups, rows.table, cols.table, [&](int64_t k, int64_t c, Scratch<T> scratch) {
      const MapShape shape = features.levels[sites[k].level].shape();
      const int64_t offset = (k * channels + c) * bins;
      kernel.maximum_nchw(map_of<S>(features, sites[k]) + c * shape.height * shape.width, shape, rows.of(k), cols.of(k),
                          interpolates, scratch, out + offset, arg + offset);
    });
  }
  return {output, argmax};
}

template <class S>
std::vector<Tensor> maximum_backward(const Tensor& given, const Tensor& given_argmax, const Tensor& boxes,
                                     const std::optional<Tensor>& roi_levels, const std::vector<int64_t>& sizes,
                                     const std::vector<double>& scales, int64_t sampling_ratio, const std::string& rule,
                                     bool channels_last) {
  using T = compute_t<S>;
  const std::vector<Level> levels = levels_of(sizes);
  const int64_t channels = levels[0].channels;
  const Tensor grad = output_gradient(given, boxes, channels, channels_last);
  const Tensor argmax = output_gradient(given_argmax, boxes, channels, channels_last);
  const int64_t pooled_height = grad.size(2), pooled_width = grad.size(3), bins = pooled_height * pooled_width;
  const Arguments<T> arguments(boxes, roi_levels, scales, levels.size(), pooled_height, pooled_width, sampling_ratio,
                               rule);
  const auto sites = find_sites(arguments.query, levels);
  const Groups groups = group_by_map(sites, levels);
  const auto rows = make_spots(arguments.query, levels, sites, Side::rows);
  const auto cols = make_spots(arguments.query, levels, sites, Side::columns);
  const bool interpolates = samples_points(arguments.query.rule);
  const Kernels<S>& kernel = kernels<S>();
  const S* from = data_of<S>(grad);
  const int32_t* arg = data_of<int32_t>(argmax);
  return gradients<S>(levels, grad.scalar_type(), channels_last, groups, rows.table, cols.table,
                      [&](int64_t k, int64_t channel, const Tile& tile, T* sums, int64_t stride) {
                        const MapShape shape = levels[sites[k].level].shape();
                        const int64_t offset = (k * channels + channel) * bins;
                        if (channels_last) {
                          kernel.maximum_backward_nhwc(from + offset, arg + offset, shape, rows.of(k), cols.of(k),
                                                       interpolates, tile, sums, stride);
                        } else {
                          kernel.maximum_backward_nchw(from + offset, arg + offset, shape, rows.of(k), cols.of(k),
                                                       interpolates, sums);
                        }
                      });
}

std::tuple<Tensor, Tensor> maximum_cpu(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels,
                                       std::vector<double> scales, int64_t pooled_height, int64_t pooled_width,
                                       int64_t sampling_ratio, std::string rule) {
  const Features maps(features);
  return dispatch(maps.type, [&](auto type) {
    return maximum<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

std::vector<Tensor> maximum_backward_cpu(Tensor grad, Tensor argmax, Tensor boxes, std::optional<Tensor> levels,
                                         std::vector<int64_t> sizes, std::vector<double> scales, int64_t sampling_ratio,
                                         std::string rule, bool channels_last) {
  STD_TORCH_CHECK(argmax.scalar_type() == ScalarType::Int, "argmax must be int32");
  return dispatch(grad.scalar_type(), [&](auto type) {
    return maximum_backward<decltype(type)>(grad, argmax, boxes, levels, sizes, scales, sampling_ratio, rule,
                                            channels_last);
  });
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("maximum", TORCH_BOX(&aligned_rcnn::maximum_cpu));
  m.impl("maximum_backward", TORCH_BOX(&aligned_rcnn::maximum_backward_cpu));
}
