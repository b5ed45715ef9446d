// The inner loops of box matching and NMS, compiled once per instruction set, whose name is VARIANT.
//
// Consecutive boxes usually lie near each other, as anchors do in the order of the map: an object that does not reach
// the bounds of a group of boxes has IoU 0 with all of them, and is skipped.

#include "match.h"
#include "overlap.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace aligned_rcnn {
namespace VARIANT {
namespace {

#include "simd.h"

// A group of boxes, coordinate by coordinate, padded with empty boxes to whole vectors.
template <class T>
struct Group {
  using V = vector_t<T>;
  T x1[kMatchedBoxes], y1[kMatchedBoxes], x2[kMatchedBoxes], y2[kMatchedBoxes], area[kMatchedBoxes];
  int vectors;
  Box<T> bounds;

  explicit Group(const MatchedBoxes<T>& boxes)
      : vectors(int((boxes.count + lanes<T> - 1) / lanes<T>)), bounds(no_bounds<T>()) {
    for (int i = 0; i < vectors * lanes<T>; ++i) {
      const T* from = boxes.boxes + 4 * i;
      const bool exists = i < boxes.count;
      x1[i] = exists ? from[0] : T(0);
      y1[i] = exists ? from[1] : T(0);
      x2[i] = exists ? from[2] : T(0);
      y2[i] = exists ? from[3] : T(0);
    }
    for (int i = 0; i < int(boxes.count); ++i) {
      bounds = bounds_of(bounds, {x1[i], y1[i], x2[i], y2[i]});
    }
    for (int v = 0; v < vectors; ++v) {
      save(area_of((*this)[v]), area + v * lanes<T>);
    }
  }

  Box<V> operator[](int v) const {
    const int i = v * lanes<T>;
    return {load_vector(x1 + i), load_vector(y1 + i), load_vector(x2 + i), load_vector(y2 + i)};
  }
  V area_of_vector(int v) const { return load_vector(area + v * lanes<T>); }
};

template <class T>
Box<T> region(const Regions<T>& regions, int64_t i) {
  return {regions.x1[i], regions.y1[i], regions.x2[i], regions.y2[i]};
}

template <class T>
Box<vector_t<T>> splat_box(const Box<T>& box) {
  using V = vector_t<T>;
  return {splat<V>(box.x1), splat<V>(box.y1), splat<V>(box.x2), splat<V>(box.y2)};
}

// Runs visit(i, region, its area) for the regions that reach the group.
template <class T, class Visit>
void for_each_near(const Regions<T>& regions, const Group<T>& group, const Visit& visit) {
  for (int64_t i = 0; i < regions.count; ++i) {
    const Box<T> box = region(regions, i);
    if (reaches(box, group.bounds)) {
      visit(i, splat_box(box), splat<vector_t<T>>(area_of(box)));
    }
  }
}

template <class T>
void match(const MatchedBoxes<T>& boxes, const Regions<T>& objects, const Regions<T>& crowds, T* highest) {
  using V = vector_t<T>;
  using I = index_t<T>;
  const Group<T> group(boxes);
  V best[kMatchedBoxes / lanes<T>], covered[kMatchedBoxes / lanes<T>];
  I object[kMatchedBoxes / lanes<T>];
  for (int v = 0; v < group.vectors; ++v) {
    best[v] = splat<V>(T(objects.count > 0 ? 0 : -1));
    covered[v] = V{};
    object[v] = I{};
  }
  for_each_near(objects, group, [&](int64_t i, const Box<V>& box, V area) {
    V most = V{};
    for (int v = 0; v < group.vectors; ++v) {
      const V iou = iou_of(box, area, group[v], group.area_of_vector(v));
      const auto better = iou > best[v];
      object[v] = better ? I{} + typename Pack<V>::lane(i) : object[v];
      best[v] = better ? iou : best[v];
      most = iou > most ? iou : most;
    }
    T top = highest[i];
    for (int lane = 0; lane < lanes<T>; ++lane) {
      top = most[lane] > top ? most[lane] : top;
    }
    highest[i] = top;
  });
  for_each_near(crowds, group, [&](int64_t, const Box<V>& box, V) {
    for (int v = 0; v < group.vectors; ++v) {
      const V share = share_of(group[v], group.area_of_vector(v), box);
      covered[v] = share > covered[v] ? share : covered[v];
    }
  });
  T* values[] = {boxes.iou, boxes.covered};
  const V* from[] = {best, covered};
  for (int i = 0; i < int(boxes.count); ++i) {
    boxes.object[i] = int32_t(reinterpret_cast<const typename Pack<V>::lane*>(object)[i]);
  }
  for (int n = 0; n < 2; ++n) {
    __builtin_memcpy(values[n], from[n], boxes.count * sizeof(T));
  }
}

template <class T>
void find_nearest(const MatchedBoxes<T>& boxes, const Regions<T>& objects, const T* highest) {
  using V = vector_t<T>;
  using I = index_t<T>;
  const Group<T> group(boxes);
  I nearest[kMatchedBoxes / lanes<T>];
  for (int v = 0; v < group.vectors; ++v) {
    nearest[v] = I{};
  }
  for_each_near(objects, group, [&](int64_t i, const Box<V>& box, V area) {
    if (highest[i] > T(0)) {
      const V top = splat<V>(highest[i]);
      for (int v = 0; v < group.vectors; ++v) {
        nearest[v] |= I(iou_of(box, area, group[v], group.area_of_vector(v)) == top);
      }
    }
  });
  for (int i = 0; i < int(boxes.count); ++i) {
    boxes.nearest[i] = nearest[i / lanes<T>][i % lanes<T>] != 0;
  }
}

template <class T>
bool overlaps(const T* box, const Regions<T>& regions, T threshold) {
  using V = vector_t<T>;
  static_assert(kPaddedRegions % lanes<T> == 0);
  const Box<T> given{box[0], box[1], box[2], box[3]};
  const Box<V> one = splat_box(given);
  const V area = splat<V>(area_of(given)), limit = splat<V>(threshold);
  for (int64_t i = 0; i < regions.count; i += lanes<T>) {
    const Box<V> others{load_vector(regions.x1 + i), load_vector(regions.y1 + i), load_vector(regions.x2 + i),
                        load_vector(regions.y2 + i)};
    const auto above = iou_of(one, area, others, area_of(others)) > limit;
    typename Pack<V>::lane any{};
    for (int lane = 0; lane < lanes<T>; ++lane) {
      any |= above[lane];
    }
    if (any != 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

template <class T>
const MatchKernels<T>& matching() {
  static constexpr MatchKernels<T> table{match<T>, find_nearest<T>, overlaps<T>};
  return table;
}

template const MatchKernels<float>& matching<float>();
template const MatchKernels<double>& matching<double>();

}  // namespace VARIANT
}  // namespace aligned_rcnn
