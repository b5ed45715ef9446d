// Distances between the Gaussians of boxes, shared by the CPU's variants and CUDA.
//
// A box is the normal distribution around its centre whose standard deviations are half its sides (NWD, section 3.1;
// RFLA, section 3.2). V is float, double or a vector of them. As in overlap.h each operation is rounded by itself, so
// that results are equal on all devices; logarithms, which are not, are computed before.
#pragma once

#include "geometry.h"

namespace aligned_rcnn {

constexpr int kGaussianRows = 5;
constexpr int kMaxRanks = 16;  // boxes that are ranked of an object

enum class Distance { wasserstein, divergence };

// NaN for boxes that are at no distance from anything.
template <class V>
struct Gaussian {
  V x, y;           // the mean
  V width, height;  // the standard deviations
  V log;            // the logarithm of their product
};

// The ranges of some Gaussians' numbers; NaN is skipped.
template <class T>
struct Spread {
  Gaussian<T> low, high;
};

// Each measure has the Gaussian within a spread that is nearest to an object. No other one there is nearer, in spite of
// rounding, since rounded sums and products rise with their operands.

template <class T>
static HOST_DEVICE T clamp(T value, T low, T high) {
  return value < low ? low : value > high ? high : value;
}

// The squared 2-Wasserstein distance (NWD, equation 6); NaN as the Gaussians are.
template <class V>
struct Wasserstein {
  Gaussian<V> object;

  explicit HOST_DEVICE Wasserstein(const Gaussian<V>& object) : object(object) {}

  HOST_DEVICE V from(const Gaussian<V>& box) const {
    const V dx = box.x - object.x, dy = box.y - object.y;
    const V dw = box.width - object.width, dh = box.height - object.height;
    return (dx * dx + dy * dy) + (dw * dw + dh * dh);
  }

  HOST_DEVICE Gaussian<V> nearest(const Spread<V>& spread) const {
    return {clamp(object.x, spread.low.x, spread.high.x), clamp(object.y, spread.low.y, spread.high.y),
            clamp(object.width, spread.low.width, spread.high.width),
            clamp(object.height, spread.low.height, spread.high.height), V{}};
  }
};

// The Kullback-Leibler divergence of a box from an object (RFLA, equation 5), at least 0 in spite of rounding.
template <class V>
struct Divergence {
  Gaussian<V> object;
  V across, down;  // half the inverse variances
  V rest;          // the logarithm, and the 1 that the divergence of equal Gaussians lacks

  explicit HOST_DEVICE Divergence(const Gaussian<V>& object)
      : object(object),
        across(half() / (object.width * object.width)),
        down(half() / (object.height * object.height)),
        rest(object.log - (half() + half())) {}

  static HOST_DEVICE V half() { return V{} + 0.5f; }

  HOST_DEVICE V from(const Gaussian<V>& box) const {
    const V dx = box.x - object.x, dy = box.y - object.y;
    const V spread = (box.width * box.width + dx * dx) * across + (box.height * box.height + dy * dy) * down;
    const V found = spread + (rest - box.log);
    return found < V{} ? V{} : found;
  }

  HOST_DEVICE Gaussian<V> nearest(const Spread<V>& spread) const {
    return {clamp(object.x, spread.low.x, spread.high.x), clamp(object.y, spread.low.y, spread.high.y),
            spread.low.width, spread.low.height, spread.high.log};
  }
};

}  // namespace aligned_rcnn
