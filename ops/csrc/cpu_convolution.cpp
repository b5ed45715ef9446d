// The operators of Winograd's convolution on the CPU.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "arguments.h"
#include "winograd.h"

namespace aligned_rcnn {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kPartBytes = 512 << 10;  // of the points of tiles that a thread computes together: fits its own cache
constexpr int64_t kLeastTiles = 36;        // of which there are so many, since each part reads all filters
constexpr int64_t kTilesOfSum = 96;        // whose products are added to the weight gradient at a time
constexpr int64_t kOutputsOfShare = 24;    // of the weight gradient that a thread computes, at least about

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
  void each(int64_t begin, int64_t number, const Visit& visit) const {
    const int64_t a_row = columns(), an_image = rows() * a_row;
    for (int64_t i = 0; i < number; ++i) {
      const int64_t image = (begin + i) / an_image, place = (begin + i) % an_image;
      const MapTile tile{height, width, channels, kTile * (place / a_row), kTile * (place % a_row)};
      visit(tile, image * height * width * channels, i);
    }
  }
};

void check_maps(const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() == 4 && maps.size(1) > 0 && maps.scalar_type() == ScalarType::Float,
                  "maps must be float32 [B, C, H, W]");
  STD_TORCH_CHECK(maps.numel() == 0 || lies_channels_last(maps), "maps must be in channels_last");
}

// Memory of a thread, kept from call to call: the kernel would zero its pages anew each time.
class Memory {
 public:
  float* get(int64_t size) {
    if (size > size_) {
      size_ = 0;
      data_.reset();
      data_.reset(
          static_cast<float*>(std::aligned_alloc(kLineBytes, (size * 4 + kLineBytes - 1) / kLineBytes * kLineBytes)));
      STD_TORCH_CHECK(data_ != nullptr, "no memory for ", size * 4, " bytes");
      size_ = size;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

// An odd number of cache lines: if points lay a power of two apart, those of a tile would displace each other.
int64_t apart(int64_t size) {
  constexpr int64_t line = kLineBytes / 4;
  return ((size + line - 1) / line | 1) * line;
}

// Convolves maps [B, C, H, W] by filters [K, C, 3, 3], plus a bias [K]; or, `turned`, maps [B, K, H, W] by these
// filters turned by half a turn, which is the gradient of the input.
Tensor winograd_conv2d(Tensor maps, Tensor filters, std::optional<Tensor> bias, bool turned) {
  check_maps(maps);
  STD_TORCH_CHECK(filters.dim() == 4 && filters.size(2) == 3 && filters.size(3) == 3 &&
                      filters.scalar_type() == ScalarType::Float && filters.size(turned ? 0 : 1) == maps.size(1),
                  "filters must be float32 [K, C, 3, 3]");
  const Tensor given = torch::stable::contiguous(filters, MemoryFormat::ChannelsLast);
  const int64_t inner = maps.size(1), outputs = given.size(turned ? 1 : 0);
  std::optional<Tensor> added;
  if (bias.has_value()) {
    STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == outputs && bias->scalar_type() == ScalarType::Float,
                    "bias must be float32, one for each output channel");
    added = torch::stable::contiguous(*bias);
  }
  const WinogradKernels& kernels = winograd_kernels();
  const Tensor output = empty({maps.size(0), outputs, maps.size(2), maps.size(3)}, ScalarType::Float, true);
  const Tiles from(maps), to(output);

  thread_local Memory kept;
  const int64_t panels = (outputs + kernels.panel - 1) / kernels.panel, padded = panels * kernels.panel;
  const int64_t matrix = apart(padded * inner);
  float* const matrices = kept.get(kPoints * matrix);
  const auto fill = turned ? kernels.turned_filters : kernels.filters;
  parallel_tasks(panels,
                 [&](int64_t p) { fill(data_of<float>(given), given.size(0), given.size(1), p, matrices, matrix); });

  const int64_t threads = torch::stable::get_num_threads();
  const int64_t most = std::max(kLeastTiles, kPartBytes / (4 * kPoints * (inner + padded)));
  const int64_t parts = ((from.count() + most - 1) / most + threads - 1) / threads * threads;
  const float *source = data_of<float>(maps), *plus = added.has_value() ? data_of<float>(*added) : nullptr;
  float* const target = mutable_data_of<float>(output);
  parallel_tasks(parts, [&](int64_t part) {
    thread_local Memory own;
    const int64_t begin = part * from.count() / parts, count = (part + 1) * from.count() / parts - begin;
    const int64_t of_inputs = apart(count * inner), of_products = apart(count * padded);
    float* const inputs = own.get(kPoints * (of_inputs + of_products));
    float* const products = inputs + kPoints * of_inputs;
    from.each(begin, count, [&](const MapTile& tile, int64_t offset, int64_t i) {
      kernels.input(source + offset, tile, inputs + i * inner, of_inputs);
    });
    for (int64_t point = 0; point < kPoints; ++point) {
      kernels.multiply(inputs + point * of_inputs, count, inner, matrices + point * matrix, panels,
                       products + point * of_products);
    }
    to.each(begin, count, [&](const MapTile& tile, int64_t offset, int64_t i) {
      kernels.output(products + i * padded, of_products, plus, tile, target + offset);
    });
  });
  return output;
}

// The weight gradient [K, C, 3, 3] of a convolution of maps [B, C, H, W], from its outputs' gradients [B, K, H, W].
Tensor winograd_weight(Tensor maps, Tensor gradients) {
  check_maps(maps);
  check_maps(gradients);
  STD_TORCH_CHECK(
      maps.size(0) == gradients.size(0) && maps.size(2) == gradients.size(2) && maps.size(3) == gradients.size(3),
      "maps and gradients must have the same images and cells");
  const WinogradKernels& kernels = winograd_kernels();
  const Tiles inputs(maps), outputs(gradients);
  const int64_t panels = (inputs.channels + kernels.panel - 1) / kernels.panel, padded = panels * kernels.panel;
  const int64_t of_tile = apart(outputs.channels), tiles = inputs.count();

  // A thread computes a row of points, or, if there are many threads, a share of its outputs: so nothing but the sums
  // [K, padded] of each point goes from one core to another.
  thread_local Memory kept;
  const int64_t of_sums = apart(outputs.channels * padded);
  float* const sums = kept.get(kPoints * of_sums);
  const float *source = data_of<float>(maps), *slope = data_of<float>(gradients);
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t shares = std::min((threads + 1) / 2, (outputs.channels + kOutputsOfShare - 1) / kOutputsOfShare);
  parallel_tasks(kSide * shares, [&](int64_t task) {
    const int64_t row = task / shares, share = task % shares;
    const int64_t first = share * outputs.channels / shares, rows = (share + 1) * outputs.channels / shares - first;
    thread_local Memory own;
    const int64_t of_inputs = apart(kTilesOfSum * padded), of_outputs = kTilesOfSum * of_tile;
    float* const values = own.get(kSide * (of_inputs + of_outputs));
    float* const slopes = values + kSide * of_inputs;
    for (int64_t begin = 0; begin == 0 || begin < tiles; begin += kTilesOfSum) {  // of no tiles the sums are zero
      const int64_t count = std::min(kTilesOfSum, tiles - begin);
      inputs.each(begin, count, [&](const MapTile& tile, int64_t offset, int64_t i) {
        float* const to = values + i * kernels.panel;
        kernels.input_row[row](source + offset, tile, to, of_inputs, count * kernels.panel);
        for (int64_t point = 0; point < kSide; ++point) {  // columns without a channel: nothing is left to chance
          float* const end = to + point * of_inputs + (panels - 1) * count * kernels.panel + kernels.panel;
          std::fill(end - (padded - inputs.channels), end, 0.0f);
        }
      });
      outputs.each(begin, count, [&](const MapTile& tile, int64_t offset, int64_t i) {
        kernels.gradient_row[row](slope + offset, tile, slopes + i * of_tile, of_outputs, kernels.panel);
      });
      for (int64_t point = 0; point < kSide; ++point) {
        kernels.correlate(slopes + point * of_outputs + first, of_tile, rows, count, values + point * of_inputs, panels,
                          begin > 0, sums + (row * kSide + point) * of_sums + first * padded);
      }
    }
  });
  const Tensor weights = empty({outputs.channels, inputs.channels, 3, 3}, ScalarType::Float, true);
  float* const to = mutable_data_of<float>(weights);
  parallel_tasks(outputs.channels, [&](int64_t k) {
    kernels.weights(sums + k * padded, of_sums, inputs.channels, to + k * 9 * inputs.channels);
  });
  return weights;
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("winograd_conv2d", TORCH_BOX(&aligned_rcnn::winograd_conv2d));
  m.impl("winograd_weight", TORCH_BOX(&aligned_rcnn::winograd_weight));
}
