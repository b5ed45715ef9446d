// The CPU operators: schemas, and the loops over RoIs, maps and channels around the kernels.
//
// Forward, each output has one writer. Backward, each pixel of a gradient has one writer too, which visits the RoIs in
// the order of their indices: results are the same bit for bit whatever the number of threads.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>
#include <tuple>

#include "plan.h"

namespace aligned_rcnn {
namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kTileBytes = 512 << 10;  // a tile of the gradient that a thread works on: within its own cache
constexpr int64_t kPlaneBytes = 512 << 10;  // the planes a thread reads at a time in NCHW

// ---- Arguments ----

Rule parse_rule(const std::string& name) {
  const std::pair<const char*, Rule> rules[] = {{"align", Rule::align},           {"align_half", Rule::align_half},
                                                {"warp", Rule::warp},             {"pool_round", Rule::pool_round},
                                                {"pool_floor", Rule::pool_floor}, {"ps_pool", Rule::ps_pool}};
  for (const auto& [known, rule] : rules) {
    if (name == known) {
      return rule;
    }
  }
  STD_TORCH_CHECK(false, "unknown rule: ", name);
}

// Channels last where every level is, and one of them not contiguous as well; otherwise NCHW.
bool is_channels_last(const std::vector<Tensor>& features) {
  bool all = true, strictly = false;
  for (const Tensor& feature : features) {
    const auto sizes = feature.sizes(), strides = feature.strides();
    const int64_t expected[4] = {sizes[1] * sizes[2] * sizes[3], 1, sizes[1] * sizes[3], sizes[1]};
    for (int d = 0; d < 4; ++d) {
      all = all && (sizes[d] == 1 || strides[d] == expected[d]);
    }
    strictly = strictly || !feature.is_contiguous();
  }
  return all && strictly;
}

MemoryFormat format_of(bool channels_last) {
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

// Boxes and levels in the types that the kernels read, kept alive beside the query that points into them.
template <class T>
struct Arguments {
  Tensor boxes;
  std::optional<Tensor> levels;
  Query<T> query;

  Arguments(const Tensor& given_boxes, const std::optional<Tensor>& given_levels, const std::vector<double>& scales,
            int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, const std::string& rule)
      : boxes(torch::stable::contiguous(torch::stable::to(given_boxes, Scalar<T>::type))) {
    STD_TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, "boxes must be [K, 5]");
    if (given_levels.has_value()) {
      levels = torch::stable::contiguous(torch::stable::to(*given_levels, ScalarType::Long));
      STD_TORCH_CHECK(levels->dim() == 1 && levels->size(0) == boxes.size(0), "levels must be [K]");
    }
    STD_TORCH_CHECK(pooled_height > 0 && pooled_width > 0, "the output must have bins");
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

struct Features {
  bool channels_last;
  std::vector<Tensor> tensors;
  std::vector<Level> levels;

  explicit Features(const std::vector<Tensor>& given) : channels_last(false) {
    STD_TORCH_CHECK(!given.empty(), "features must not be empty");
    for (const Tensor& tensor : given) {
      STD_TORCH_CHECK(tensor.dim() == 4 && tensor.scalar_type() == given[0].scalar_type() &&
                          tensor.size(1) == given[0].size(1),
                      "features must be [N, C, H, W] of one dtype and one number of channels");
    }
    channels_last = is_channels_last(given);
    for (const Tensor& tensor : given) {
      tensors.push_back(torch::stable::contiguous(tensor, format_of(channels_last)));
      levels.push_back({tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)});
    }
  }
};

std::vector<Level> levels_of(const std::vector<int64_t>& sizes) {
  STD_TORCH_CHECK(!sizes.empty() && sizes.size() % 4 == 0, "sizes must hold N, C, H, W for each level");
  std::vector<Level> levels;
  for (size_t i = 0; i < sizes.size(); i += 4) {
    levels.push_back({sizes[i], sizes[i + 1], sizes[i + 2], sizes[i + 3]});
  }
  return levels;
}

Tensor empty(std::vector<int64_t> sizes, ScalarType type, bool channels_last) {
  return torch::stable::empty(sizes, type, std::nullopt, std::nullopt, std::nullopt, format_of(channels_last));
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

// ---- Forward ----

// RoIs with a map, ordered by map, so that neighbours in time are neighbours in memory; the others' outputs are zeroed.
template <class S>
void zero_outputs(const std::vector<Site>& sites, int64_t roi_size, S* out) {
  for (size_t k = 0; k < sites.size(); ++k) {
    if (sites[k].level < 0) {
      std::fill_n(out + k * roi_size, roi_size, S{});
    }
  }
}

// The channels of one map that a thread treats together in NCHW.
struct PlaneTask {
  int64_t map, begin, end;
};

template <class S>
std::vector<PlaneTask> plane_tasks(const Groups& groups, const std::vector<Level>& levels, bool also_empty) {
  std::vector<PlaneTask> tasks;
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    if (!also_empty && groups.begin[m] == groups.begin[m + 1]) {
      continue;
    }
    const Level& level = levels[groups.maps[m].level];
    const int64_t plane = std::max<int64_t>(level.height * level.width * static_cast<int64_t>(sizeof(S)), 1);
    const int64_t block = std::clamp<int64_t>(kPlaneBytes / plane, 1, 16);
    for (int64_t c = 0; c < level.channels; c += block) {
      tasks.push_back({static_cast<int64_t>(m), c, std::min(c + block, level.channels)});
    }
  }
  return tasks;
}

template <class S>
const S* map_of(const Features& features, Site site) {
  const Level& level = features.levels[site.level];
  return data_of<S>(features.tensors[site.level]) + site.image * level.channels * level.height * level.width;
}

int64_t widest(const std::vector<Level>& levels) {
  int64_t width = 0;
  for (const Level& level : levels) {
    width = std::max(width, level.width);
  }
  return width;
}

template <class S>
Tensor average(const std::vector<Tensor>& given, const Tensor& boxes, const std::optional<Tensor>& roi_levels,
               const std::vector<double>& scales, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
               const std::string& rule) {
  using T = compute_t<S>;
  const Features features(given);
  const Arguments<T> arguments(boxes, roi_levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const int64_t channels = features.levels[0].channels, bins = pooled_height * pooled_width;
  Tensor output =
      empty({arguments.query.count, channels, pooled_height, pooled_width}, given[0].scalar_type(), features.channels_last);
  S* out = mutable_data_of<S>(output);
  const auto sites = find_sites(arguments.query, features.levels);
  const Groups groups = group_by_map(sites, features.levels);
  const auto rows = make_taps(arguments.query, features.levels, sites, Side::rows);
  const auto cols = make_taps(arguments.query, features.levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  zero_outputs(sites, channels * bins, out);
  if (features.channels_last) {
    parallel_tasks(static_cast<int64_t>(groups.order.size()), [&](int64_t i) {
      const int64_t k = groups.order[i];
      kernel.average_nhwc(map_of<S>(features, sites[k]), features.levels[sites[k].level].shape(), rows.of(k), cols.of(k),
                          out + k * channels * bins);
    });
    return output;
  }
  const auto tasks = plane_tasks<S>(groups, features.levels, false);
  const int64_t scratch_size = widest(features.levels) + 64;
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const PlaneTask& task = tasks[i];
    const Level& level = features.levels[groups.maps[task.map].level];
    const S* map = map_of<S>(features, groups.maps[task.map]);
    std::vector<T> scratch(scratch_size);
    for (int64_t j = groups.begin[task.map]; j < groups.begin[task.map + 1]; ++j) {
      const int64_t k = groups.order[j];
      for (int64_t c = task.begin; c < task.end; ++c) {
        kernel.average_nchw(map + c * level.height * level.width, level.shape(), rows.of(k), cols.of(k), scratch.data(),
                            out + (k * channels + c) * bins);
      }
    }
  });
  return output;
}

template <class S>
std::tuple<Tensor, Tensor> maximum(const std::vector<Tensor>& given, const Tensor& boxes,
                                   const std::optional<Tensor>& roi_levels, const std::vector<double>& scales,
                                   int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                                   const std::string& rule) {
  using T = compute_t<S>;
  const Features features(given);
  const Arguments<T> arguments(boxes, roi_levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const int64_t channels = features.levels[0].channels, bins = pooled_height * pooled_width;
  const std::vector<int64_t> sizes{arguments.query.count, channels, pooled_height, pooled_width};
  Tensor output = empty(sizes, given[0].scalar_type(), features.channels_last);
  Tensor argmax = empty(sizes, ScalarType::Int, features.channels_last);
  S* out = mutable_data_of<S>(output);
  int32_t* arg = mutable_data_of<int32_t>(argmax);
  const auto sites = find_sites(arguments.query, features.levels);
  const Groups groups = group_by_map(sites, features.levels);
  const auto rows = make_spots(arguments.query, features.levels, sites, Side::rows);
  const auto cols = make_spots(arguments.query, features.levels, sites, Side::columns);
  const Kernels<S>& kernel = kernels<S>();
  const bool interpolates = samples_points(arguments.query.rule);
  zero_outputs(sites, channels * bins, out);
  for (size_t k = 0; k < sites.size(); ++k) {
    if (sites[k].level < 0) {
      std::fill_n(arg + k * channels * bins, channels * bins, -1);
    }
  }
  if (features.channels_last) {
    parallel_tasks(static_cast<int64_t>(groups.order.size()), [&](int64_t i) {
      const int64_t k = groups.order[i], offset = k * channels * bins;
      kernel.maximum(map_of<S>(features, sites[k]), features.levels[sites[k].level].shape(), rows.of(k), cols.of(k),
                     interpolates, out + offset, arg + offset);
    });
    return {output, argmax};
  }
  const auto tasks = plane_tasks<S>(groups, features.levels, false);
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const PlaneTask& task = tasks[i];
    const Level& level = features.levels[groups.maps[task.map].level];
    const S* map = map_of<S>(features, groups.maps[task.map]);
    for (int64_t j = groups.begin[task.map]; j < groups.begin[task.map + 1]; ++j) {
      const int64_t k = groups.order[j];
      for (int64_t c = task.begin; c < task.end; ++c) {
        const int64_t offset = (k * channels + c) * bins;
        kernel.maximum(map + c * level.height * level.width, {1, level.height, level.width}, rows.of(k), cols.of(k),
                       interpolates, out + offset, arg + offset);
      }
    }
  });
  return {output, argmax};
}

// ---- Backward ----

// The gradients of all levels, made tile by tile. A tile is the rows y0 .. y1 of a map (channels last) or one channel of
// it (NCHW). `add(map, y0, y1, channel, tile)` adds what the RoIs of the map give to a tile of zeros.
template <class S, class Add>
std::vector<Tensor> gradients(const std::vector<Level>& levels, ScalarType type, bool channels_last, const Groups& groups,
                              const Add& add) {
  using T = compute_t<S>;
  std::vector<Tensor> results;
  for (const Level& level : levels) {
    results.push_back(empty({level.images, level.channels, level.height, level.width}, type, channels_last));
  }
  struct Tile {
    int64_t map, y0, y1, channel;
  };
  std::vector<Tile> tiles;
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    const Level& level = levels[groups.maps[m].level];
    if (level.channels == 0 || level.height == 0 || level.width == 0) {
      continue;
    }
    if (channels_last) {
      const int64_t row = level.width * level.channels * static_cast<int64_t>(sizeof(T));
      const int64_t height = std::clamp<int64_t>(kTileBytes / row, 1, level.height);
      for (int64_t y = 0; y < level.height; y += height) {
        tiles.push_back({static_cast<int64_t>(m), y, std::min(y + height, level.height), 0});
      }
    } else {
      for (int64_t c = 0; c < level.channels; ++c) {
        tiles.push_back({static_cast<int64_t>(m), 0, level.height, c});
      }
    }
  }
  parallel_tasks(static_cast<int64_t>(tiles.size()), [&](int64_t i) {
    const Tile& tile = tiles[i];
    const Site site = groups.maps[tile.map];
    const Level& level = levels[site.level];
    const int64_t wide = channels_last ? level.channels : 1;  // channels of a tile
    const int64_t size = (tile.y1 - tile.y0) * level.width * wide;
    S* gradient = mutable_data_of<S>(results[site.level]) + site.image * level.channels * level.height * level.width +
                  (tile.y0 * level.width * wide) + tile.channel * level.height * level.width;
    if constexpr (std::is_same_v<S, T>) {
      std::fill_n(gradient, size, T(0));
      add(tile.map, tile.y0, tile.y1, tile.channel, gradient);
    } else {  // 16-bit gradients are summed in float and rounded once
      std::vector<T> sums(size, T(0));
      add(tile.map, tile.y0, tile.y1, tile.channel, sums.data());
      kernels<S>().store(sums.data(), gradient, size);
    }
  });
  return results;
}

template <class S>
std::vector<Tensor> average_backward(const Tensor& given, const Tensor& boxes, const std::optional<Tensor>& roi_levels,
                                     const std::vector<int64_t>& sizes, const std::vector<double>& scales,
                                     int64_t sampling_ratio, const std::string& rule, bool channels_last) {
  using T = compute_t<S>;
  const std::vector<Level> levels = levels_of(sizes);
  const Tensor grad = torch::stable::contiguous(given, format_of(channels_last));
  const int64_t pooled_height = grad.size(2), pooled_width = grad.size(3), channels = levels[0].channels;
  const Arguments<T> arguments(boxes, roi_levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const auto sites = find_sites(arguments.query, levels);
  const Groups groups = group_by_map(sites, levels);
  const auto rows = make_taps(arguments.query, levels, sites, Side::rows);
  const auto row_cells = transpose(rows);
  const auto col_cells = transpose(make_taps(arguments.query, levels, sites, Side::columns));
  const Kernels<S>& kernel = kernels<S>();
  const S* from = data_of<S>(grad);
  const int64_t bins = pooled_height * pooled_width, scratch_size = widest(levels) + 64;
  return gradients<S>(levels, grad.scalar_type(), channels_last, groups,
                      [&](int64_t map, int64_t y0, int64_t y1, int64_t channel, T* tile) {
                        const MapShape shape = levels[groups.maps[map].level].shape();
                        std::vector<T> scratch(channels_last ? 0 : scratch_size);
                        for (int64_t i = groups.begin[map]; i < groups.begin[map + 1]; ++i) {
                          const int64_t k = groups.order[i];
                          if (!channels_last) {
                            kernel.average_backward_nchw(from + (k * channels + channel) * bins, pooled_width, shape,
                                                         rows.of(k), col_cells.of(k), scratch.data(), tile);
                          } else if (rows.low[k] < y1 && rows.high[k] >= y0) {
                            kernel.average_backward_nhwc(from + k * channels * bins, pooled_width, shape,
                                                         row_cells.of(k), col_cells.of(k), y0, y1, tile);
                          }
                        }
                      });
}

template <class S>
std::vector<Tensor> maximum_backward(const Tensor& given, const Tensor& given_argmax, const Tensor& boxes,
                                     const std::optional<Tensor>& roi_levels, const std::vector<int64_t>& sizes,
                                     const std::vector<double>& scales, int64_t sampling_ratio, const std::string& rule,
                                     bool channels_last) {
  using T = compute_t<S>;
  const std::vector<Level> levels = levels_of(sizes);
  const Tensor grad = torch::stable::contiguous(given, format_of(channels_last));
  const Tensor argmax = torch::stable::contiguous(given_argmax, format_of(channels_last));
  const int64_t pooled_height = grad.size(2), pooled_width = grad.size(3), channels = levels[0].channels;
  const Arguments<T> arguments(boxes, roi_levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const auto sites = find_sites(arguments.query, levels);
  const Groups groups = group_by_map(sites, levels);
  const auto rows = make_spots(arguments.query, levels, sites, Side::rows);
  const auto cols = make_spots(arguments.query, levels, sites, Side::columns);
  const bool interpolates = samples_points(arguments.query.rule);
  const Kernels<S>& kernel = kernels<S>();
  const S* from = data_of<S>(grad);
  const int32_t* arg = data_of<int32_t>(argmax);
  const int64_t bins = pooled_height * pooled_width;
  return gradients<S>(levels, grad.scalar_type(), channels_last, groups,
                      [&](int64_t map, int64_t y0, int64_t y1, int64_t channel, T* tile) {
                        const MapShape shape = levels[groups.maps[map].level].shape();
                        const int64_t wide = channels_last ? channels : 1;
                        for (int64_t i = groups.begin[map]; i < groups.begin[map + 1]; ++i) {
                          const int64_t k = groups.order[i], offset = (k * channels + channel) * bins;
                          if (rows.table.low[k] < y1 && rows.table.high[k] >= y0) {
                            kernel.maximum_backward(from + offset, arg + offset, {wide, shape.height, shape.width},
                                                    rows.of(k), cols.of(k), interpolates, y0, y1, tile);
                          }
                        }
                      });
}

// ---- The operators ----

Tensor average_cpu(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels, std::vector<double> scales,
                   int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  STD_TORCH_CHECK(!features.empty(), "features must not be empty");
  return dispatch(features[0].scalar_type(), [&](auto type) {
    return average<decltype(type)>(features, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

std::vector<Tensor> average_backward_cpu(Tensor grad, Tensor boxes, std::optional<Tensor> levels,
                                         std::vector<int64_t> sizes, std::vector<double> scales, int64_t sampling_ratio,
                                         std::string rule, bool channels_last) {
  return dispatch(grad.scalar_type(), [&](auto type) {
    return average_backward<decltype(type)>(grad, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last);
  });
}

std::tuple<Tensor, Tensor> maximum_cpu(std::vector<Tensor> features, Tensor boxes, std::optional<Tensor> levels,
                                       std::vector<double> scales, int64_t pooled_height, int64_t pooled_width,
                                       int64_t sampling_ratio, std::string rule) {
  STD_TORCH_CHECK(!features.empty(), "features must not be empty");
  return dispatch(features[0].scalar_type(), [&](auto type) {
    return maximum<decltype(type)>(features, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

std::vector<Tensor> maximum_backward_cpu(Tensor grad, Tensor argmax, Tensor boxes, std::optional<Tensor> levels,
                                         std::vector<int64_t> sizes, std::vector<double> scales, int64_t sampling_ratio,
                                         std::string rule, bool channels_last) {
  return dispatch(grad.scalar_type(), [&](auto type) {
    return maximum_backward<decltype(type)>(grad, argmax, boxes, levels, sizes, scales, sampling_ratio, rule,
                                            channels_last);
  });
}

std::string cpu_variant() { return variant_name(); }

}  // namespace
}  // namespace aligned_rcnn

// features: one tensor [N, C, H, W] per level; boxes [K, 5]; levels [K] (None: all on the first); sizes: N, C, H, W of
// each level. See geometry.h for the rules.
STABLE_TORCH_LIBRARY(aligned_rcnn, m) {
  m.def(
      "average(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> Tensor");
  m.def(
      "average_backward(Tensor grad, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, int sampling_ratio, "
      "str rule, bool channels_last) -> Tensor[]");
  m.def(
      "maximum(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> (Tensor, Tensor)");
  m.def(
      "maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, "
      "int sampling_ratio, str rule, bool channels_last) -> Tensor[]");
  m.def("cpu_variant() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("average", TORCH_BOX(&aligned_rcnn::average_cpu));
  m.impl("average_backward", TORCH_BOX(&aligned_rcnn::average_backward_cpu));
  m.impl("maximum", TORCH_BOX(&aligned_rcnn::maximum_cpu));
  m.impl("maximum_backward", TORCH_BOX(&aligned_rcnn::maximum_backward_cpu));
}

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CompositeExplicitAutograd, m) {
  m.impl("cpu_variant", TORCH_BOX(&aligned_rcnn::cpu_variant));
}
