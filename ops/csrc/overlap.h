// The overlap of boxes, shared by the CPU's variants and CUDA.
//
// V is float, double or a vector of them. Each operation is rounded by itself, as in a chain of tensor operations, so
// that results are equal on all devices: files that include this are compiled with -ffp-contract=off, or -fmad=false.
// The functions are static, since otherwise the linker might pick, for all variants, those of a newer processor.
#pragma once

#include "geometry.h"

namespace aligned_rcnn {

template <class V>
struct Box {
  V x1, y1, x2, y2;
};

template <class V>
static HOST_DEVICE V area_of(const Box<V>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

template <class V>
static HOST_DEVICE V intersection(const Box<V>& a, const Box<V>& b) {
  const V left = a.x1 > b.x1 ? a.x1 : b.x1, right = a.x2 < b.x2 ? a.x2 : b.x2;
  const V top = a.y1 > b.y1 ? a.y1 : b.y1, bottom = a.y2 < b.y2 ? a.y2 : b.y2;
  const V width = right - left, height = bottom - top;
  return (width > V{} ? width : V{}) * (height > V{} ? height : V{});
}

// The IoU; 0 where the union is empty or not a number. It is never NaN.
template <class V>
static HOST_DEVICE V iou_of(const Box<V>& a, V area_of_a, const Box<V>& b, V area_of_b) {
  const V common = intersection(a, b);
  const V all = area_of_a + area_of_b - common;
  return all > V{} ? common / all : V{};
}

// The share of `a` within `b`; 0 if the area of `a` is not positive.
template <class V>
static HOST_DEVICE V share_of(const Box<V>& a, V area_of_a, const Box<V>& b) {
  return area_of_a > V{} ? intersection(a, b) / area_of_a : V{};
}

// The smallest box that contains others. NaN is skipped: such a box overlaps nothing.
template <class T>
static HOST_DEVICE Box<T> no_bounds() {
  return {T(INFINITY), T(INFINITY), T(-INFINITY), T(-INFINITY)};
}

template <class T>
static HOST_DEVICE Box<T> bounds_of(const Box<T>& a, const Box<T>& b) {
  return {b.x1 < a.x1 ? b.x1 : a.x1, b.y1 < a.y1 ? b.y1 : a.y1, b.x2 > a.x2 ? b.x2 : a.x2, b.y2 > a.y2 ? b.y2 : a.y2};
}

// Whether a box may have a part in common with some box within the bounds.
template <class T>
static HOST_DEVICE bool reaches(const Box<T>& box, const Box<T>& bounds) {
  return box.x1 < bounds.x2 && box.x2 > bounds.x1 && box.y1 < bounds.y2 && box.y2 > bounds.y1;
}

}  // namespace aligned_rcnn
