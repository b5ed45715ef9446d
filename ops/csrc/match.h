// The interface of the inner loops of box matching and NMS on the CPU; match_kernels.cpp is compiled once per
// instruction set, under the same conditions as kernels.cpp.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace aligned_rcnn {

constexpr int kMatchedBoxes = 256;  // boxes that are matched together, while their bests are in the cache

constexpr int kPaddedRegions = 16;  // a multiple of every variant's vectors

// Objects, or crowd regions, coordinate by coordinate.
template <class T>
struct Regions {
  const T *x1, *y1, *x2, *y2;
  int64_t count;
};

// Up to kMatchedBoxes boxes [count, 4], and their results.
template <class T>
struct MatchedBoxes {
  const T* boxes;
  int64_t count;
  T* iou;            // of the best object, the first one of equal IoU
  int32_t* object;   // its place in the Regions
  T* covered;        // the largest share within a crowd region
  uint8_t* nearest;  // whether the IoU with some object is the highest that any box has, and positive
};

template <class T>
struct MatchKernels {
  // Writes iou, object and covered, and raises `highest`, the highest IoU of each object with any box.
  void (*match)(const MatchedBoxes<T>& boxes, const Regions<T>& objects, const Regions<T>& crowds, T* highest);
  // Writes nearest.
  void (*find_nearest)(const MatchedBoxes<T>& boxes, const Regions<T>& objects, const T* highest);
  // Tells whether the IoU of `box` (x1, y1, x2, y2) with some region exceeds the threshold. The regions' arrays are
  // readable up to a multiple of kPaddedRegions.
  bool (*overlaps)(const T* box, const Regions<T>& regions, T threshold);
};

// The fastest variant, as for `kernels`.
template <class T>
const MatchKernels<T>& match_kernels();

#define ALIGNED_RCNN_MATCH_VARIANT(name) \
  namespace name {                       \
  template <class T>                     \
  const MatchKernels<T>& matching();     \
  }
ALIGNED_RCNN_MATCH_VARIANT(portable)
#if defined(__x86_64__)
ALIGNED_RCNN_MATCH_VARIANT(avx2)
ALIGNED_RCNN_MATCH_VARIANT(avx512)
#endif

}  // namespace aligned_rcnn
