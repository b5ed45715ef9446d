// The arithmetic of every RoI operator along one axis, shared by host and device.
//
// All operators are separable into rows and columns. An operator is a rule that divides the span between the edges of a
// box into bins, and a bin into places on the map: points between cells (sampling) or whole cells (pooling). Forward
// and backward use the same places and weights.
//
// T is the type of coordinates and weights: float, or double for double features.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define HOST_DEVICE __host__ __device__ inline
#else
#define HOST_DEVICE inline
#endif

namespace aligned_rcnn {

// Where the bins of a RoI lie, and whether they sample points or pool whole cells.
enum class Rule : int {
  align,         // RoIAlign: exact edges, sides of at least one cell
  align_half,    // RoIAlign with the half-pixel shift
  warp,          // RoIWarp: edges rounded to cells, then sampled
  pool_round,    // RoIPool as in use: edges rounded, both end cells included
  pool_floor,    // RoIPool of the textbooks: edges floored, the end cell excluded
  ps_pool,       // PSRoIPool of torchvision: edges rounded, the end cell excluded, the last row and column not read
  ps_pool_rfcn,  // PSRoIPool of R-FCN's authors: edges rounded in pixels, the end included, bins rounded to cells
};

HOST_DEVICE bool samples_points(Rule rule) {
  return rule == Rule::align || rule == Rule::align_half || rule == Rule::warp;
}

// The most samples of an adaptive grid along a bin, so that their numbers stay exact in float.
constexpr int kMaxGrid = 1 << 20;

// A product that is rounded by itself: nvcc must not fuse it with an addition, since the host does not.
HOST_DEVICE float times(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

HOST_DEVICE double times(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// One axis of one RoI on its level; empty (grid 0) if an edge is not finite.
template <class T>
struct Axis {
  Rule rule;
  int size;       // cells of the map
  int grid;       // samples per bin; 0: the RoI is empty
  int64_t first;  // the first cell (pooling)
  T start;        // the first edge, in cells (sampling, ps_pool_rfcn)
  T bin;          // the extent of a bin, in cells
};

// Converts a whole number, clamped to +-2^30 so that sums of a few do not overflow.
template <class T>
HOST_DEVICE int64_t to_cell(T value) {
  const T limit = T(1 << 30);
  return static_cast<int64_t>(value < -limit ? -limit : (value > limit ? limit : value));
}

template <class T>
HOST_DEVICE Axis<T> make_axis(Rule rule, T low, T high, T scale, int bins, int sampling_ratio, int size) {
  Axis<T> axis{rule, size, 0, 0, T(0), T(0)};
  const bool whole_pixels = rule == Rule::ps_pool_rfcn;
  const T begin = times(whole_pixels ? std::round(low) : low, scale);
  const T end = times(whole_pixels ? std::round(high) + T(1) : high, scale);
  if (!std::isfinite(begin) || !std::isfinite(end)) {
    return axis;
  }
  T extent;
  if (rule == Rule::align || rule == Rule::align_half) {
    const T shift = rule == Rule::align_half ? T(0.5) : T(0);
    axis.start = begin - shift;
    extent = (end - shift) - axis.start;
    if (rule == Rule::align && extent < T(1)) {
      extent = T(1);
    }
  } else if (whole_pixels) {
    axis.start = begin;
    extent = end - begin > T(0.1) ? end - begin : T(0.1);
  } else {
    const bool floors = rule == Rule::pool_floor;
    const int64_t first = to_cell(floors ? std::floor(begin) : std::round(begin));
    const int64_t last = to_cell(floors ? std::floor(end) : std::round(end));
    const int64_t count = last - first + (rule == Rule::pool_floor || rule == Rule::ps_pool ? 0 : 1);
    axis.first = first;
    axis.start = static_cast<T>(first);
    extent = static_cast<T>(count > 1 ? count : 1);
  }
  axis.bin = extent / static_cast<T>(bins);
  if (!std::isfinite(axis.bin)) {
    return axis;
  }
  if (!samples_points(rule)) {
    axis.grid = 1;
  } else if (sampling_ratio > 0) {
    axis.grid = sampling_ratio;
  } else {
    const T grid = std::ceil(axis.bin);
    axis.grid = grid > T(0) ? static_cast<int>(grid < T(kMaxGrid) ? grid : T(kMaxGrid)) : 0;
  }
  return axis;
}

// ---- Sampling: points between cells ----

template <class T>
HOST_DEVICE T sample_point(const Axis<T>& axis, int bin, int sample) {
  const T edge = axis.start + times(static_cast<T>(bin), axis.bin);
  return edge + times(static_cast<T>(sample) + T(0.5), axis.bin) / static_cast<T>(axis.grid);
}

// Whether a point is at most one cell off the map; beyond, its value is zero.
template <class T>
HOST_DEVICE bool in_reach(T point, int size) {
  return point >= T(-1) && point <= static_cast<T>(size);
}

struct Range {
  int begin, end;
};

// The samples of a bin within reach of the map. Points are monotone in the sample's number, so these are consecutive
// and found by bisection: a RoI far larger than the map costs no more than one of the map's size.
template <class T>
HOST_DEVICE Range samples_in_reach(const Axis<T>& axis, int bin) {
  if (axis.grid == 0) {
    return {0, 0};
  }
  if (in_reach(sample_point(axis, bin, 0), axis.size) && in_reach(sample_point(axis, bin, axis.grid - 1), axis.size)) {
    return {0, axis.grid};
  }
  const bool rising = axis.bin >= T(0);
  const T limit = static_cast<T>(axis.size);
  Range range{0, 0};
  for (int side = 0; side < 2; ++side) {
    int low = 0, high = axis.grid;  // bisect for the first sample within reach (side 0), then for the end (side 1)
    while (low < high) {
      const int middle = low + (high - low) / 2;
      const T point = sample_point(axis, bin, middle);
      const bool before =
          side == 0 ? (rising ? point < T(-1) : point > limit) : (rising ? point <= limit : point >= T(-1));
      if (before) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    (side == 0 ? range.begin : range.end) = low;
  }
  return range;
}

// A place on an axis, between the cells `low` (fraction 0) and `low + 1` (fraction 1). At 0 only `low` is read.
template <class T>
struct Place {
  int low;
  T fraction;
};

template <class T>
HOST_DEVICE Place<T> place_of(T point, int size) {
  const T inside = point > T(0) ? point : T(0);
  const int low = static_cast<int>(inside);
  if (low >= size - 1) {
    return {size - 1, T(0)};  // beyond the last cell's centre, that cell's value
  }
  return {low, inside - static_cast<T>(low)};
}

// ---- Pooling: whole cells ----

template <class T>
HOST_DEVICE Range cells_of(const Axis<T>& axis, int bin) {
  if (axis.grid == 0) {
    return {0, 0};
  }
  const T from = times(static_cast<T>(bin), axis.bin), to = times(static_cast<T>(bin + 1), axis.bin);
  int64_t begin, end;
  if (axis.rule == Rule::ps_pool_rfcn) {
    begin = to_cell(std::floor(from + axis.start));
    end = to_cell(std::ceil(to + axis.start));
  } else {
    begin = static_cast<int64_t>(std::floor(from)) + axis.first;
    end = static_cast<int64_t>(std::ceil(to)) + axis.first;
  }
  const int64_t limit = axis.rule == Rule::ps_pool ? axis.size - 1 : axis.size;
  const int64_t low = begin < 0 ? 0 : (begin > limit ? limit : begin);
  const int64_t high = end < 0 ? 0 : (end > limit ? limit : end);
  return {static_cast<int>(low), static_cast<int>(high > low ? high : low)};
}

// ---- The places and weights of a bin ----

// The number of places of a bin, and whether some of its samples are out of reach and count as zeros.
struct Candidates {
  int count;
  bool zeros;
};

// Visits the places of a bin in order: visit(number, Place).
template <class T, class Visit>
HOST_DEVICE Candidates for_each_place(const Axis<T>& axis, int bin, Visit&& visit) {
  if (samples_points(axis.rule)) {
    const Range range = samples_in_reach(axis, bin);
    for (int sample = range.begin; sample < range.end; ++sample) {
      visit(sample - range.begin, place_of(sample_point(axis, bin, sample), axis.size));
    }
    return {range.end - range.begin, range.end - range.begin < axis.grid};
  }
  const Range range = cells_of(axis, bin);
  for (int cell = range.begin; cell < range.end; ++cell) {
    visit(cell - range.begin, Place<T>{cell, T(0)});
  }
  return {range.end - range.begin, false};
}

// Adds up the weights of some samples of a bin by cell: emit(cell, weight), cells rising, each at most once, none with
// weight 0.
template <class T, class Emit>
HOST_DEVICE void for_each_tap_of_samples(const Axis<T>& axis, int bin, Range range, Emit&& emit) {
  const int count = range.end - range.begin;
  const T grid = static_cast<T>(axis.grid);
  int cell = 0;
  T here = T(0), next = T(0);  // the sums so far of the weights of `cell` and of the next cell
  for (int i = 0; i < count; ++i) {
    const int sample = axis.bin >= T(0) ? range.begin + i : range.end - 1 - i;
    const Place<T> place = place_of(sample_point(axis, bin, sample), axis.size);
    if (place.low != cell) {
      if (here != T(0)) {
        emit(cell, here / grid);
      }
      if (place.low != cell + 1) {
        if (next != T(0)) {
          emit(cell + 1, next / grid);
        }
        next = T(0);
      }
      here = next;
      next = T(0);
      cell = place.low;
    }
    here += T(1) - place.fraction;
    next += place.fraction;
  }
  if (here != T(0)) {
    emit(cell, here / grid);
  }
  if (next != T(0)) {
    emit(cell + 1, next / grid);
  }
}

// The average over a bin's places as weights of cells: emit(cell, weight), cells rising, each at most once, none with
// weight 0. A cell's weight in two dimensions is the product of its row's and its column's.
template <class T, class Emit>
HOST_DEVICE void for_each_tap(const Axis<T>& axis, int bin, Emit&& emit) {
  if (samples_points(axis.rule)) {
    for_each_tap_of_samples(axis, bin, samples_in_reach(axis, bin), emit);
    return;
  }
  const Range range = cells_of(axis, bin);
  for (int cell = range.begin; cell < range.end; ++cell) {
    emit(cell, T(1) / static_cast<T>(range.end - range.begin));
  }
}

}  // namespace aligned_rcnn
