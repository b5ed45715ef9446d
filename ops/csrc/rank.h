// The interface of the inner loops that rank boxes by the distance of their Gaussians from objects'; rank_kernels.cpp
// is compiled once per instruction set, under the same conditions as match_kernels.cpp.
#pragma once

#include <cstdint>

#include "gaussian.h"
#include "kernels.h"

namespace aligned_rcnn {

constexpr int kRankedBoxes = 256;  // boxes that are ranked together, while their bests are in the cache

// Gaussians, row by row: `rows` is [kGaussianRows, stride], of which these are `count` columns.
template <class T>
struct Gaussians {
  const T* rows;
  int64_t stride, count;
};

// Up to kRankedBoxes boxes, and their results.
template <class T>
struct RankedBoxes {
  Gaussians<T> gaussians;
  T* distance;      // from the nearest object; infinite where there is none
  int32_t* object;  // the nearest, the first one of equal distance; 0 where there is none
  int32_t* ranked;  // the nearest of the objects within whose limit the box lies; -1 for none
};

template <class T>
struct RankKernels {
  // By Distance: writes distance and object, and keeps the `topk` least distances of each object in
  // nearest [objects, topk], ascending, which begins as infinities.
  void (*find[2])(const RankedBoxes<T>& boxes, const Gaussians<T>& objects, T* nearest, int topk);
  // By Distance: writes ranked; limit [objects].
  void (*assign[2])(const RankedBoxes<T>& boxes, const Gaussians<T>& objects, const T* limit);
};

// The fastest variant, as for `kernels`.
template <class T>
const RankKernels<T>& rank_kernels();

#define ALIGNED_RCNN_RANK_VARIANT(name) \
  namespace name {                      \
  template <class T>                    \
  const RankKernels<T>& ranking();      \
  }
ALIGNED_RCNN_RANK_VARIANT(portable)
#if defined(__x86_64__)
ALIGNED_RCNN_RANK_VARIANT(avx2)
ALIGNED_RCNN_RANK_VARIANT(avx512)
#endif

}  // namespace aligned_rcnn
