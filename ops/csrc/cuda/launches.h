// The interface of the CUDA kernels' launches. It needs no CUDA header; pointers are to device memory.
//
// All work goes to one stream, and the host does not wait for it. The kernels are channels last: maps are [N, H, W, C],
// outputs [K, PH, PW, C]; NCHW is transposed before and after.
#pragma once

#include <cstdint>

#include "../gaussian.h"
#include "../geometry.h"
#include "../kernels.h"
#include "../masks.h"

namespace aligned_rcnn::cuda {

constexpr int kMaxLevels = 32;  // limits the size of kernel arguments, which hold the levels by value

struct LevelMap {
  const void* data;  // forward: the features, read; backward: the gradient, written
  int64_t images;
  int height, width;
  double scale;
};

struct Pyramid {
  int count;
  int64_t channels;
  bool aligned;  // all pointers, and the size of a cell's channels, are multiples of 16 bytes
  LevelMap levels[kMaxLevels];
};

template <class T>
struct Query {
  const T* boxes;         // [K, 5]
  const int64_t* levels;  // [K]; nullptr: all on level 0
  int64_t count;
  Rule rule;
  int pooled_height, pooled_width, sampling_ratio;
};

// `count` contiguous matrices [rows, columns] to transpose.
struct Matrices {
  const void* from;
  void* to;
  int64_t count, rows, columns;
};

// Tiles of 8 x 8 cells of all maps of a pyramid, and the RoIs that touch each group of tiles.
constexpr int kTile = 8;
#if !defined(ALIGNED_RCNN_BINNING_BYTES)
#define ALIGNED_RCNN_BINNING_BYTES (64 << 20)  // most memory of the masks of RoIs; the tests set less
#endif

struct Tiles {
  int64_t first[kMaxLevels];  // number of a level's first tile; tiles are numbered by level, image, row, column
  int rows[kMaxLevels], columns[kMaxLevels];
  int64_t total;
};

// The cells that a RoI touches: rows [y0, y1), columns [x0, x1). level -1: none.
struct Extent {
  int32_t level;
  int32_t y0, y1, x0, x1;
};

struct Binning {
  int shift;  // a group has 2^shift x 2^shift tiles
  Tiles groups;
  int64_t words;      // 32-bit words per group; bit k % 32 of word k / 32 is RoI k
  uint32_t* touched;  // [groups, words]
  Extent* extents;    // [K]
};

Tiles make_tiles(const Pyramid& pyramid, int shift);
// Chooses the size of the groups and counts the words; the caller allocates `touched` and `extents`.
Binning plan_binning(const Pyramid& pyramid, int64_t rois);

// The bits of a float that is not negative, ordered as the floats are.
template <class T>
struct MatchBits {
  using type = unsigned;
};
template <>
struct MatchBits<double> {
  using type = unsigned long long;
};
template <class T>
using match_bits_t = typename MatchBits<T>::type;

// Boxes and objects to match, and the results, as the operator `match` returns them.
template <class T>
struct Matching {
  const T* boxes;  // [count, 4]
  int64_t count;
  const T* objects;   // [objects_count, 4]
  const bool* crowd;  // [objects_count]
  int64_t objects_count;
  match_bits_t<T>* highest;  // [objects_count]: the highest IoU of each object with any box
  T* iou;
  int64_t* index;
  bool* nearest;
  T* covered;
};

// In two launches, between which no host waits.
template <class T>
void match(const Matching<T>& matching, void* stream);

// The Gaussians of boxes and objects to rank, and the results, as the operator `rank` returns them.
template <class T>
struct Ranking {
  const T* boxes;  // [kGaussianRows, count]
  int64_t count;
  const T* objects;   // [kGaussianRows, objects_count]
  const bool* crowd;  // [objects_count]
  int64_t objects_count;
  unsigned topk;
  match_bits_t<T>* next;   // [objects_count]: the least distance beyond the limit
  match_bits_t<T>* limit;  // [objects_count]: the greatest distance of the boxes that are ranked
  unsigned* found;         // [objects_count]: boxes at the distance `next`
  unsigned* ranked_boxes;  // [objects_count]: boxes up to the limit
  T* distance;
  int64_t* index;
  int64_t* ranked;
};

// In three launches per rank and one more, between which no host waits.
template <class T>
void rank(const Ranking<T>& ranking, Distance distance, void* stream);

// size: bytes per element, 2, 4 or 8.
void transpose(const Matrices* matrices, int count, int size, void* stream);

// out: [R, PH, PW].
void average_masks(const MaskQuery& query, float* out, void* stream);

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
