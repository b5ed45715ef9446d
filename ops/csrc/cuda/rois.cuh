// The map and the axes of a RoI, for all kernels.
#pragma once

#include "device.cuh"
#include "launches.h"

namespace aligned_rcnn::cuda {

// The level and the image of a RoI; level -1 if one of them does not exist.
struct Site {
  int level;
  int64_t image;
};

template <class T>
__device__ inline Site site_of(const Query<T>& query, const Pyramid& pyramid, int64_t k) {
  const int64_t level = query.levels == nullptr ? 0 : query.levels[k];
  if (!(level >= 0 && level < pyramid.count)) {
    return {-1, 0};
  }
  const LevelMap& map = pyramid.levels[level];
  const T image = query.boxes[k * 5];
  if (!(image > T(-1) && image < static_cast<T>(map.images)) || map.height == 0 || map.width == 0) {
    return {-1, 0};
  }
  return {static_cast<int>(level), static_cast<int64_t>(image)};
}

enum class Side { rows, columns };

template <class T>
__device__ inline Axis<T> axis_of(const Query<T>& query, const Pyramid& pyramid, int level, int64_t k, Side side) {
  const LevelMap& map = pyramid.levels[level];
  const bool rows = side == Side::rows;
  const T* edges = query.boxes + k * 5 + (rows ? 2 : 1);
  return make_axis<T>(query.rule, edges[0], edges[2], static_cast<T>(map.scale),
                      rows ? query.pooled_height : query.pooled_width, query.sampling_ratio,
                      rows ? map.height : map.width);
}

// The first element of one image of a level, channels last.
template <class S>
__device__ inline S* map_of(const Pyramid& pyramid, int level, int64_t image) {
  const LevelMap& map = pyramid.levels[level];
  return static_cast<S*>(const_cast<void*>(map.data)) + image * map.height * map.width * pyramid.channels;
}

}  // namespace aligned_rcnn::cuda
