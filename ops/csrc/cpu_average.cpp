// The operators `average` and `ps_average` and their gradients, on the CPU.
#include "loops.h"

namespace aligned_rcnn {
namespace {

template <class S>
Tensor average(const Features& features, const Tensor& boxes, const std::optional<Tensor>& roi_levels,
               const std::vector<double>& scales, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
               const std::string& rule) {
  using T = compute_t<S>;
  const Arguments<T> arguments(boxes, roi_levels, scales, features.levels.size(), pooled_height, pooled_width,
                               sampling_ratio, rule);
  const int64_t channels = features.levels[0].channels, bins = pooled_height * pooled_width;
  Tensor output =
      empty({arguments.query.count, channels, pooled_height, pooled_width}, features.type, features.channels_last);
  S* out = mutable_data_of<S>(output);
  const auto sites = find_sites(arguments.query, features.levels);
  const Groups groups = group_by_map(sites, features.levels);
  const auto rows = make_taps(arguments.query, features.levels, sites, Side::rows);
  const auto cols = make_taps(arguments.query, features.levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  fill_outputs_without_map(sites, channels * bins, S{}, out);
  if (features.channels_last) {
    for_each_roi(groups, rows, cols, [&](int64_t k) {
      kernel.average_nhwc(map_of<S>(features, sites[k]), features.levels[sites[k].level].shape(), rows.of(k),
                          cols.of(k), out + k * channels * bins);
    });
  } else {
    for_each_plane<S>(features, groups, rows, cols, [&](int64_t k, int64_t c, Scratch<T> scratch) {
      const MapShape shape = features.levels[sites[k].level].shape();
      kernel.average_nchw(map_of<S>(features, sites[k]) + c * shape.height * shape.width, shape, rows.of(k), cols.of(k),
                          scratch.row, out + (k * channels + c) * bins);
    });
  }
  return output;
}

template <class S>
std::vector<Tensor> average_backward(const Tensor& given, const Tensor& boxes, const std::optional<Tensor>& roi_levels,
                                     const std::vector<int64_t>& sizes, const std::vector<double>& scales,
                                     int64_t sampling_ratio, const std::string& rule, bool channels_last) {
  using T = compute_t<S>;
  const std::vector<Level> levels = levels_of(sizes);
  const Tensor grad = output_gradient(given, boxes, levels[0].channels, channels_last);
  const int64_t pooled_height = grad.size(2), pooled_width = grad.size(3), channels = levels[0].channels;
  const Arguments<T> arguments(boxes, roi_levels, scales, levels.size(), pooled_height, pooled_width, sampling_ratio,
                               rule);
  const auto sites = find_sites(arguments.query, levels);
  const Groups groups = group_by_map(sites, levels);
  const auto rows = make_taps(arguments.query, levels, sites, Side::rows);
  const auto row_cells = transpose(rows);
  const auto col_cells = transpose(make_taps(arguments.query, levels, sites, Side::columns));
  const Kernels<S>& kernel = kernels<S>();
  const S* from = data_of<S>(grad);
  const int64_t bins = pooled_height * pooled_width, scratch_size = scratch_size_of(levels, col_cells);
  return gradients<S>(levels, grad.scalar_type(), channels_last, groups, rows, col_cells,
                      [&](int64_t k, int64_t channel, const Tile& tile, T* sums, int64_t stride) {
                        const MapShape shape = levels[sites[k].level].shape();
                        if (channels_last) {
                          kernel.average_backward_nhwc(from + k * channels * bins, pooled_width, shape, row_cells.of(k),
                                                       col_cells.of(k), tile, sums, stride);
                        } else {
                          thread_local std::vector<T> scratch;
                          scratch.resize(scratch_size);
                          kernel.average_backward_nchw(from + (k * channels + channel) * bins, pooled_width, shape,
                                                       rows.of(k), col_cells.of(k), scratch.data(), sums);
                        }
                      });
}

// Bin (ph, pw) of output channel c is pooled from channel (c * PH + ph) * PW + pw of the features.
Strides strides_of(const Level& level, bool channels_last, int64_t bins) {
  if (channels_last) {
    return {bins, level.width * level.channels, level.channels};
  }
  return {bins * level.height * level.width, level.width, 1};
}

template <class S>
Tensor ps_average(const Features& features, const Tensor& boxes, const std::optional<Tensor>& roi_levels,
                  const std::vector<double>& scales, int64_t pooled_height, int64_t pooled_width,
                  int64_t sampling_ratio, const std::string& rule) {
  using T = compute_t<S>;
  const Arguments<T> arguments(boxes, roi_levels, scales, features.levels.size(), pooled_height, pooled_width,
                               sampling_ratio, rule);
  const int64_t bins = pooled_height * pooled_width, channels = features.levels[0].channels / bins;
  const bool last = features.channels_last;
  STD_TORCH_CHECK(features.levels[0].channels == channels * bins, "channels must be a multiple of the number of bins");
  Tensor output = empty({arguments.query.count, channels, pooled_height, pooled_width}, features.type, last);
  S* out = mutable_data_of<S>(output);
  const auto sites = find_sites(arguments.query, features.levels);
  const Groups groups = group_by_map(sites, features.levels);
  const auto rows = make_taps(arguments.query, features.levels, sites, Side::rows);
  const auto cols = make_taps(arguments.query, features.levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  fill_outputs_without_map(sites, channels * bins, S{}, out);
  for_each_roi(groups, rows, cols, [&](int64_t k) {
    const Level& level = features.levels[sites[k].level];
    const Strides strides = strides_of(level, last, bins);
    for (int64_t bin = 0; bin < bins; ++bin) {
      kernel.ps_average(map_of<S>(features, sites[k]) + bin * strides.channel / bins, strides, channels, rows.of(k),
                        cols.of(k), static_cast<int>(bin / pooled_width), static_cast<int>(bin % pooled_width),
                        out + k * channels * bins + bin * (last ? channels : 1), last ? 1 : bins);
    }
  });
  return output;
}

template <class S>
std::vector<Tensor> ps_average_backward(const Tensor& given, const Tensor& boxes,
                                        const std::optional<Tensor>& roi_levels, const std::vector<int64_t>& sizes,
                                        const std::vector<double>& scales, int64_t sampling_ratio,
                                        const std::string& rule, bool channels_last) {
  using T = compute_t<S>;
  const std::vector<Level> levels = levels_of(sizes);
  const int64_t pooled_height = given.size(2), pooled_width = given.size(3), bins = pooled_height * pooled_width;
  const int64_t channels = levels[0].channels / std::max<int64_t>(bins, 1);
  const Tensor grad = output_gradient(given, boxes, channels, channels_last);
  const Arguments<T> arguments(boxes, roi_levels, scales, levels.size(), pooled_height, pooled_width, sampling_ratio,
                               rule);
  const auto sites = find_sites(arguments.query, levels);
  const Groups groups = group_by_map(sites, levels);
  const auto rows = make_taps(arguments.query, levels, sites, Side::rows);
  const auto cols = make_taps(arguments.query, levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  const S* from = data_of<S>(grad);
  return gradients<S>(levels, grad.scalar_type(), channels_last, groups, rows, cols,
                      [&](int64_t k, int64_t channel, const Tile& tile, T* sums, int64_t stride) {
                        const S* roi = from + k * channels * bins;
                        if (channels_last) {  // the tile has all channels, so all bins contribute
                          const Strides strides{bins, stride, levels[sites[k].level].channels};
                          for (int64_t bin = 0; bin < bins; ++bin) {
                            kernel.ps_average_backward(roi + bin * channels, 1, strides, channels, rows.of(k),
                                                       cols.of(k), static_cast<int>(bin / pooled_width),
                                                       static_cast<int>(bin % pooled_width), tile, sums + bin);
                          }
                        } else {  // the tile has one channel, which belongs to one bin
                          const int64_t bin = channel % bins;
                          kernel.ps_average_backward(roi + channel, 1, {0, stride, 1}, 1, rows.of(k), cols.of(k),
                                                     static_cast<int>(bin / pooled_width),
                                                     static_cast<int>(bin % pooled_width), tile, sums);
                        }
                      });
}

// ---- Dispatch by dtype ----

Tensor average_cpu(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels, std::vector<double> scales,
                   int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  const Features maps(features);
  return dispatch(maps.type, [&](auto type) {
    return average<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

std::vector<Tensor> average_backward_cpu(Tensor grad, Tensor boxes, std::optional<Tensor> levels,
                                         std::vector<int64_t> sizes, std::vector<double> scales, int64_t sampling_ratio,
                                         std::string rule, bool channels_last) {
  return dispatch(grad.scalar_type(), [&](auto type) {
    return average_backward<decltype(type)>(grad, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last);
  });
}

Tensor ps_average_cpu(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels,
                      std::vector<double> scales, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                      std::string rule) {
  const Features maps(features);
  return dispatch(maps.type, [&](auto type) {
    return ps_average<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

std::vector<Tensor> ps_average_backward_cpu(Tensor grad, Tensor boxes, std::optional<Tensor> levels,
                                            std::vector<int64_t> sizes, std::vector<double> scales,
                                            int64_t sampling_ratio, std::string rule, bool channels_last) {
  return dispatch(grad.scalar_type(), [&](auto type) {
    return ps_average_backward<decltype(type)>(grad, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last);
  });
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("average", TORCH_BOX(&aligned_rcnn::average_cpu));
  m.impl("average_backward", TORCH_BOX(&aligned_rcnn::average_backward_cpu));
  m.impl("ps_average", TORCH_BOX(&aligned_rcnn::ps_average_cpu));
  m.impl("ps_average_backward", TORCH_BOX(&aligned_rcnn::ps_average_backward_cpu));
}
