// The operators of Winograd's convolution on the CPU: what lies before and after its matrix products.
#include "arguments.h"
#include "winograd.h"

namespace aligned_rcnn {
namespace {

constexpr int64_t kTilesATask = 8;

// The tiles of maps [B, C, H, W] in channels_last, image by image and row by row.
struct Tiles {
  int64_t images, channels, height, width;

  explicit Tiles(const Tensor& maps)
      : images(maps.size(0)), channels(maps.size(1)), height(maps.size(2)), width(maps.size(3)) {}

  int64_t rows() const { return (height + kTile - 1) / kTile; }
  int64_t columns() const { return (width + kTile - 1) / kTile; }
  int64_t count() const { return images * rows() * columns(); }

  // Calls visit(tile, offset of its image, i) for the tiles begin + i, where i is in [0, number).
  template <class Visit>
  void visit(int64_t begin, int64_t number, const Visit& visit) const {
    const int64_t a_row = columns(), an_image = rows() * a_row;
    parallel_tasks((number + kTilesATask - 1) / kTilesATask, [&](int64_t task) {
      for (int64_t i = task * kTilesATask; i < std::min(number, (task + 1) * kTilesATask); ++i) {
        const int64_t image = (begin + i) / an_image, place = (begin + i) % an_image;
        const MapTile tile{height, width, channels, kTile * (place / a_row), kTile * (place % a_row)};
        visit(tile, image * height * width * channels, i);
      }
    });
  }
};

void check_maps(const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() == 4 && maps.scalar_type() == ScalarType::Float, "maps must be float32 [B, C, H, W]");
  STD_TORCH_CHECK(
      is_channels_last({maps}) || maps.size(1) == 1 || maps.size(2) * maps.size(3) == 1 || maps.numel() == 0,
      "maps must be in channels_last");
}

// Checks points [36, T, C], of which those of one point are contiguous.
void check_points(const Tensor& points, int64_t channels) {
  const bool shaped = points.dim() == 3 && points.size(0) == kPoints && points.size(2) == channels;
  STD_TORCH_CHECK(shaped && points.stride(2) == 1 && points.stride(1) == channels &&
                      points.stride(0) >= points.size(1) * channels && points.scalar_type() == ScalarType::Float,
                  "points must be float32 [36, T, C] with the maps' channels, contiguous but for the first dimension");
}

void check_tiles(const Tensor& points, const Tiles& tiles, int64_t begin) {
  check_points(points, tiles.channels);
  STD_TORCH_CHECK(0 <= begin && begin + points.size(1) <= tiles.count(), "the maps have ", tiles.count(), " tiles");
}

// Fills points [36, T, C] from the tiles of maps from `begin` on.
void winograd_input(Tensor maps, int64_t begin, bool gradient, Tensor points) {
  check_maps(maps);
  const Tiles tiles(maps);
  check_tiles(points, tiles, begin);
  const auto& kernels = winograd_kernels();
  const auto kernel = gradient ? kernels.gradient : kernels.input;
  const float* from = data_of<float>(maps);
  float* to = mutable_data_of<float>(points);
  const int64_t stride = points.stride(0);
  tiles.visit(begin, points.size(1), [&](const MapTile& tile, int64_t offset, int64_t i) {
    kernel(from + offset, tile, to + i * tiles.channels, stride);
  });
}

// Fills the tiles of maps from `begin` on from points [36, T, C], plus a bias.
void winograd_output(Tensor points, std::optional<Tensor> bias, int64_t begin, Tensor maps) {
  check_maps(maps);
  const Tiles tiles(maps);
  check_tiles(points, tiles, begin);
  std::optional<Tensor> added;
  if (bias.has_value()) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == tiles.channels && bias->scalar_type() == ScalarType::Float,
                    "bias must be float32 [C]");
    added = torch::stable::contiguous(*bias);
  }
  const auto kernel = winograd_kernels().output;
  const float *from = data_of<float>(points), *plus = added.has_value() ? data_of<float>(*added) : nullptr;
  float* to = mutable_data_of<float>(maps);
  const int64_t stride = points.stride(0);
  tiles.visit(begin, points.size(1), [&](const MapTile& tile, int64_t offset, int64_t i) {
    kernel(from + i * tiles.channels, stride, plus, tile, to + offset);
  });
}

// Fills points [36, K, C] from filters [K, C, 3, 3], or from these turned by half a turn.
void winograd_filter(Tensor filters, bool turned, Tensor points) {
  STD_TORCH_CHECK(
      filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 && filters.scalar_type() == ScalarType::Float,
      "filters must be float32 [K, C, 3, 3]");
  const Tensor given = torch::stable::contiguous(filters, MemoryFormat::ChannelsLast);
  const int64_t count = given.size(0), channels = given.size(1);
  check_points(points, channels);
  STD_TORCH_CHECK(points.size(1) == count, "points must be [36, K, C]");
  const auto kernel = winograd_kernels().filter;
  const float* from = data_of<float>(given);
  float* to = mutable_data_of<float>(points);
  parallel_tasks(count, [&](int64_t k) {
    kernel(from + 9 * k * channels, channels, turned, to + k * channels, points.stride(0));
  });
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("winograd_input", TORCH_BOX(&aligned_rcnn::winograd_input));
  m.impl("winograd_output", TORCH_BOX(&aligned_rcnn::winograd_output));
  m.impl("winograd_filter", TORCH_BOX(&aligned_rcnn::winograd_filter));
}
