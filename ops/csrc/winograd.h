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

struct WinogradKernels {
  // Writes the values [channels] of the inputs of a tile at each point, `stride` elements apart; beside the map are
  // zeros.
  void (*input)(const float* map, MapTile tile, float* out, int64_t stride);
  // Writes the outputs of a tile that lie on the map, from the products at each point, plus `bias` (null: none).
  void (*output)(const float* points, int64_t stride, const float* bias, MapTile tile, float* map);
  // The transpose of `output`: writes the values of the outputs' gradients at each point.
  void (*gradient)(const float* map, MapTile tile, float* out, int64_t stride);
  // Writes the values [channels] of one filter [3, 3, channels] at each point; `turned` by half a turn.
  void (*filter)(const float* filter, int64_t channels, bool turned, float* out, int64_t stride);
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
