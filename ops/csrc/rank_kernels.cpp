// The inner loops that rank boxes, compiled once per instruction set, whose name is VARIANT.
//
// Consecutive boxes usually lie near each other, as anchors do in the order of the map: an object that is farther from
// the bounds of a group of boxes than all that they, and the object, have found before is skipped.
#include "rank.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace aligned_rcnn {
namespace VARIANT {
namespace {

#include "simd.h"

template <class T>
constexpr int kVectors = kRankedBoxes / lanes<T>;

// The Gaussians of a group of boxes, padded with NaN to whole vectors.
template <class T>
struct Group {
  using V = vector_t<T>;
  T rows[kGaussianRows][kRankedBoxes];
  int vectors;
  Spread<T> spread;

  explicit Group(const Gaussians<T>& boxes) : vectors(int((boxes.count + lanes<T> - 1) / lanes<T>)) {
    T low[kGaussianRows], high[kGaussianRows];
    for (int row = 0; row < kGaussianRows; ++row) {
      const T* from = boxes.rows + row * boxes.stride;
      low[row] = T(INFINITY);
      high[row] = T(-INFINITY);
      for (int i = 0; i < vectors * lanes<T>; ++i) {
        rows[row][i] = i < boxes.count ? from[i] : T(NAN);
        low[row] = rows[row][i] < low[row] ? rows[row][i] : low[row];
        high[row] = rows[row][i] > high[row] ? rows[row][i] : high[row];
      }
    }
    spread = {{low[0], low[1], low[2], low[3], low[4]}, {high[0], high[1], high[2], high[3], high[4]}};
  }

  Gaussian<V> operator[](int v) const {
    const int i = v * lanes<T>;
    return {load_vector(rows[0] + i), load_vector(rows[1] + i), load_vector(rows[2] + i), load_vector(rows[3] + i),
            load_vector(rows[4] + i)};
  }
};

template <class T>
Gaussian<T> gaussian_at(const Gaussians<T>& from, int64_t i) {
  const T* at = from.rows + i;
  const int64_t stride = from.stride;
  return {at[0], at[stride], at[2 * stride], at[3 * stride], at[4 * stride]};
}

template <class T>
Gaussian<vector_t<T>> splat_gaussian(const Gaussian<T>& one) {
  using V = vector_t<T>;
  return {splat<V>(one.x), splat<V>(one.y), splat<V>(one.width), splat<V>(one.height), splat<V>(one.log)};
}

// Runs visit(object, its Measure) for the objects of which `matters(object, least)` is true, where no box of the group
// is nearer than `least`.
template <template <class> class Measure, class T, class Matters, class Visit>
void for_each_near(const Gaussians<T>& objects, const Group<T>& group, const Matters& matters, const Visit& visit) {
  for (int64_t i = 0; i < objects.count; ++i) {
    const Gaussian<T> object = gaussian_at(objects, i);
    const Measure<T> measure(object);
    if (matters(i, measure.from(measure.nearest(group.spread)))) {
      visit(i, Measure<vector_t<T>>(splat_gaussian(object)));
    }
  }
}

// Inserts a distance into the ascending list of an object.
template <class T>
void insert(T distance, T* nearest, int topk) {
  int at = topk - 1;
  for (; at > 0 && distance < nearest[at - 1]; --at) {
    nearest[at] = nearest[at - 1];
  }
  nearest[at] = distance;
}

template <template <class> class Measure, class T>
void find(const RankedBoxes<T>& boxes, const Gaussians<T>& objects, T* nearest, int topk) {
  using V = vector_t<T>;
  using I = index_t<T>;
  const Group<T> group(boxes.gaussians);
  const V infinite = splat<V>(T(INFINITY)), nowhere = splat<V>(T(-1));
  V best[kVectors<T>], distance[kVectors<T>];
  I object[kVectors<T>];
  for (int v = 0; v < group.vectors; ++v) {
    const V x = group[v].width;
    best[v] = x == x ? infinite : nowhere;  // boxes of NaN find nothing
    object[v] = I{};
  }
  T farthest = T(INFINITY);  // of the boxes' bests
  const auto matters = [&](int64_t i, T least) { return least < farthest || least < nearest[i * topk + topk - 1]; };
  for_each_near<Measure>(objects, group, matters, [&](int64_t i, const Measure<V>& measure) {
    V least = infinite, most = nowhere;
    for (int v = 0; v < group.vectors; ++v) {
      const V found = measure.from(group[v]);
      const auto better = found < best[v];
      object[v] = better ? I{} + typename Pack<V>::lane(i) : object[v];
      best[v] = better ? found : best[v];
      most = best[v] > most ? best[v] : most;
      least = found < least ? found : least;
      distance[v] = found;
    }
    T* list = nearest + i * topk;
    T lowest = T(INFINITY);
    farthest = T(-1);
    for (int lane = 0; lane < lanes<T>; ++lane) {
      lowest = least[lane] < lowest ? least[lane] : lowest;
      farthest = most[lane] > farthest ? most[lane] : farthest;
    }
    if (lowest < list[topk - 1]) {
      const T* each = reinterpret_cast<const T*>(distance);
      for (int n = 0; n < int(boxes.gaussians.count); ++n) {
        if (each[n] < list[topk - 1]) {
          insert(each[n], list, topk);
        }
      }
    }
  });
  for (int n = 0; n < int(boxes.gaussians.count); ++n) {
    const T found = best[n / lanes<T>][n % lanes<T>];
    boxes.object[n] = int32_t(object[n / lanes<T>][n % lanes<T>]);
    boxes.distance[n] = found < T(0) ? T(INFINITY) : found;
  }
}

template <template <class> class Measure, class T>
void assign(const RankedBoxes<T>& boxes, const Gaussians<T>& objects, const T* limit) {
  using V = vector_t<T>;
  using I = index_t<T>;
  const Group<T> group(boxes.gaussians);
  V best[kVectors<T>];
  I ranked[kVectors<T>];
  for (int v = 0; v < group.vectors; ++v) {
    best[v] = splat<V>(T(INFINITY));
    ranked[v] = I{} - 1;
  }
  const auto matters = [&](int64_t i, T least) { return least <= limit[i]; };
  for_each_near<Measure>(objects, group, matters, [&](int64_t i, const Measure<V>& measure) {
    const V within = splat<V>(limit[i]);
    for (int v = 0; v < group.vectors; ++v) {
      const V found = measure.from(group[v]);
      const auto better = (found <= within) & (found < best[v]);
      ranked[v] = better ? I{} + typename Pack<V>::lane(i) : ranked[v];
      best[v] = better ? found : best[v];
    }
  });
  for (int n = 0; n < int(boxes.gaussians.count); ++n) {
    boxes.ranked[n] = int32_t(ranked[n / lanes<T>][n % lanes<T>]);
  }
}

}  // namespace

template <class T>
const RankKernels<T>& ranking() {
  static constexpr RankKernels<T> table{{find<Wasserstein, T>, find<Divergence, T>},
                                        {assign<Wasserstein, T>, assign<Divergence, T>}};
  return table;
}

template const RankKernels<float>& ranking<float>();
template const RankKernels<double>& ranking<double>();

}  // namespace VARIANT
}  // namespace aligned_rcnn
