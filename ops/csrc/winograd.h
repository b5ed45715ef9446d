// The interface of the inner loops of Winograd's convolution on the CPU; winograd_kernels.cpp is compiled once per
// instruction set, under the same conditions as kernels.cpp.
//
// A 3 x 3 convolution of stride and padding 1 is computed in tiles of kTile x kTile outputs, for which kPoints products
// a pair of channels are needed, where 9 x kTile x kTile would be otherwise (Lavin and Gray, 2016): filter, input and
// output are taken to the values of polynomials at kSide points a side, and back.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace aligned_rcnn {

constexpr int64_t kTile = 4;          // outputs along a side of a tile
constexpr int64_t kSide = kTile + 2;  // inputs along it, and points
constexpr int64_t kPoints = kSide * kSide;

// A tile of a map [height, width, channels]: the place of its first output, which may lie one tile before the edge.
struct MapTile {
  int64_t height, width, channels, y, x;
};

// Values at the points are `stride` elements apart from one point to the next. A matrix to multiply by is stored as
// panels of `panel` columns: [columns / panel, rows, panel], the last one filled up with zeros.
struct WinogradKernels {
  // Writes the values [channels] of the inputs of a tile at each point; beside the map are zeros.
  void (*input)(const float* map, MapTile tile, float* out, int64_t stride);
  // Writes the outputs of a tile that lie on the map, from the products at each point, plus `bias` (null: none).
  void (*output)(const float* points, int64_t stride, const float* bias, MapTile tile, float* map);
  // The same as `input` for one row of points, from one panel of channels to the next a step of panel_stride; and the
  // transpose of `output`, the values of the outputs' gradients.
  void (*input_row[kSide])(const float* map, MapTile tile, float* out, int64_t stride, int64_t panel_stride);
  void (*gradient_row[kSide])(const float* map, MapTile tile, float* out, int64_t stride, int64_t panel_stride);
  // Writes the panel `number` of the matrices of filters [count, 3, 3, channels], one for each point: `channels` rows
  // of filters, or, for the gradient of the input, `count` rows of channels, of the filters turned by half a turn.
  void (*filters)(const float* filters, int64_t count, int64_t channels, int64_t number, float* out, int64_t stride);
  void (*turned_filters)(const float* filters, int64_t count, int64_t channels, int64_t number, float* out,
                         int64_t stride);
  // The transpose of `filters`: writes the weights [3, 3, channels] of one filter from the values at each point.
  void (*weights)(const float* points, int64_t stride, int64_t channels, float* filter);
  // Multiplies a matrix [rows, inner] by panels of a matrix of `inner` rows: out [rows, panel_count * panel].
  void (*multiply)(const float* matrix, int64_t rows, int64_t inner, const float* panels, int64_t panel_count,
                   float* out);
  // The same of a matrix [inner, rows], whose rows of memory are `stride` apart, transposed; adds to `out` if asked.
  void (*correlate)(const float* matrix, int64_t stride, int64_t rows, int64_t inner, const float* panels,
                    int64_t panel_count, bool add, float* out);
  int64_t panel;
};

// The fastest variant, as for `kernels`.
const WinogradKernels& winograd_kernels();

#define ALIGNED_RCNN_WINOGRAD_VARIANT(name) \
  namespace name {                          \
  const WinogradKernels& winograd();        \
  }
ALIGNED_RCNN_WINOGRAD_VARIANT(portable)
#if defined(__x86_64__)
ALIGNED_RCNN_WINOGRAD_VARIANT(avx2)
ALIGNED_RCNN_WINOGRAD_VARIANT(avx512)
#endif

}  // namespace aligned_rcnn
