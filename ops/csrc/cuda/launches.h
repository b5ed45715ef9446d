// The CUDA operators' launches: what they take. Nothing here needs a CUDA header, and pointers are to device memory.
//
// All work goes to one stream and nothing waits for it. Channels last throughout: maps are [N, H, W, C], outputs
// [K, PH, PW, C]; other layouts are transposed before and after.
#pragma once

#include <cstdint>

#include "../geometry.h"
#include "../kernels.h"

namespace aligned_rcnn::cuda {

constexpr int kMaxLevels = 32;  // they go to the kernels by value

struct LevelMap {
  const void* data;  // forward: the features; backward: the gradient, which is written
  int64_t images;
  int height, width;
  double scale;
};

struct Pyramid {
  int count;
  int64_t channels;
  bool aligned;  // vectors of 16 bytes may be used: channels, and all pointers, are multiples of one
  LevelMap levels[kMaxLevels];
};

template <class T>
struct Query {
  const T* boxes;         // [K, 5]
  const int64_t* levels;  // [K], or nullptr: all on level 0
  int64_t count;
  Rule rule;
  int pooled_height, pooled_width, sampling_ratio;
};

// Matrices to be transposed: `count` of [rows, columns] each, one behind the other.
struct Matrices {
  const void* from;
  void* to;
  int64_t count, rows, columns;
};

// Tiles of 8 x 8 cells of all maps of a pyramid, and for groups of them the RoIs that touch them.
constexpr int kTile = 8;
#if !defined(ALIGNED_RCNN_BINNING_BYTES)
#define ALIGNED_RCNN_BINNING_BYTES (64 << 20)  // of bits for RoIs and tiles; tests ask for less
#endif

struct Tiles {
  int64_t first[kMaxLevels];  // the number of a level's first tile; image by image, row by row
  int rows[kMaxLevels], columns[kMaxLevels];
  int64_t total;
};

// The cells of a map that a RoI touches: rows y0 .. y1, columns x0 .. x1, ends excluded. level -1: none.
struct Extent {
  int32_t level;
  int32_t y0, y1, x0, x1;
};

struct Binning {
  int shift;  // a group has 2^shift x 2^shift tiles
  Tiles groups;
  int64_t words;      // 32-bit words a group; bit k % 32 of word k / 32 is RoI k
  uint32_t* touched;  // [groups, words]
  Extent* extents;    // [K]
};

Tiles make_tiles(const Pyramid& pyramid, int shift);
// Chooses the groups' size and counts the words; the caller gives the memory.
Binning plan_binning(const Pyramid& pyramid, int64_t rois);

// size: an element's bytes (2, 4 or 8).
void transpose(const Matrices* matrices, int count, int size, void* stream);

template <class S>
struct Launches {
  using T = compute_t<S>;
  static void average(const Pyramid& features, const Query<T>& query, S* out, void* stream);
  static void average_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning, const S* grad,
                               void* stream);
  static void ps_average(const Pyramid& features, const Query<T>& query, S* out, void* stream);
  static void ps_average_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning,
                                  const S* grad, void* stream);
  static void maximum(const Pyramid& features, const Query<T>& query, S* out, int32_t* argmax, void* stream);
  static void maximum_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning, const S* grad,
                               const int32_t* argmax, void* stream);
};

}  // namespace aligned_rcnn::cuda
