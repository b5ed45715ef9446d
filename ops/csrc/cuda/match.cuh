// Box matching: a thread per box, and the objects in tiles in shared memory.
//
// Two passes, since which boxes are the nearest of an object is known only when all have been seen. Consecutive boxes
// usually lie near each other, as anchors do in the order of the map: a block lists the objects that reach the bounds
// of its boxes, and compares only with those. Maxima are taken by atomics on the bits of floats that are not negative,
// which are ordered as the floats are: the result does not depend on the order of the threads.
#pragma once

#include "../overlap.h"
#include "device.cuh"
#include "launches.h"

namespace aligned_rcnn::cuda {

constexpr int kMatchThreads = 256;  // boxes of a block; also objects of a tile
constexpr int kMatchWords = kMatchThreads / 32;

__device__ inline unsigned bits_of(float value) { return __float_as_uint(value); }
__device__ inline unsigned long long bits_of(double value) {
  return static_cast<unsigned long long>(__double_as_longlong(value));
}
__device__ inline float value_of(unsigned bits) { return __uint_as_float(bits); }
__device__ inline double value_of(unsigned long long bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}

// A block's shared memory.
template <class T>
struct MatchTile {
  Box<T>* bounds;        // [kMatchThreads]; the first in the end holds those of all boxes
  Box<T>* objects;       // [kMatchThreads]
  match_bits_t<T>* top;  // [kMatchThreads]: the highest IoU of each object, as bits
  uint32_t* near;        // [kMatchWords]: bit o % 32 of word o / 32: object o reaches the bounds
  uint32_t* crowd;       // [kMatchWords]: it is a crowd region

  __device__ MatchTile() {
    SharedMemory memory;
    bounds = memory.take<Box<T>>(kMatchThreads);
    objects = memory.take<Box<T>>(kMatchThreads);
    top = memory.take<match_bits_t<T>>(kMatchThreads);
    near = memory.take<uint32_t>(kMatchWords);
    crowd = memory.take<uint32_t>(kMatchWords);
  }

  static size_t bytes() {
    return 2 * shared_bytes<Box<T>>(kMatchThreads) + shared_bytes<match_bits_t<T>>(kMatchThreads) +
           2 * shared_bytes<uint32_t>(kMatchWords);
  }
};

template <class T>
__device__ inline Box<T> box_at(const T* boxes, int64_t i) {
  return {boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]};
}

// Leaves the bounds of the block's boxes in tile.bounds[0].
template <class T>
__device__ inline void find_bounds(const MatchTile<T>& tile, const Box<T>& mine) {
  tile.bounds[threadIdx.x] = bounds_of(no_bounds<T>(), mine);
  __syncthreads();
  for (unsigned half = kMatchThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      tile.bounds[threadIdx.x] = bounds_of(tile.bounds[threadIdx.x], tile.bounds[threadIdx.x + half]);
    }
    __syncthreads();
  }
}

// Loads the objects from `begin` on: where they are, which are crowds, and which reach the block's boxes.
template <class T>
__device__ inline void load_objects(const MatchTile<T>& tile, const Matching<T>& matching, int64_t begin) {
  const unsigned thread = threadIdx.x;
  const int64_t i = begin + thread;
  if (thread < kMatchWords) {
    tile.near[thread] = tile.crowd[thread] = 0;
  }
  tile.top[thread] = 0;
  __syncthreads();
  if (i < matching.objects_count) {
    tile.objects[thread] = box_at(matching.objects, i);
    const uint32_t bit = 1u << (thread % 32);
    if (matching.crowd[i]) {
      atomicOr(tile.crowd + thread / 32, bit);
    }
    if (reaches(tile.objects[thread], tile.bounds[0])) {
      atomicOr(tile.near + thread / 32, bit);
    }
  }
  __syncthreads();
}

// Runs visit(o) for the objects that reach the block's boxes, by rising number, or for such crowd regions.
template <class T, class Visit>
__device__ inline void for_each_near(const MatchTile<T>& tile, bool crowds, const Visit& visit) {
  for (int w = 0; w < kMatchWords; ++w) {
    for (uint32_t bits = tile.near[w] & (crowds ? tile.crowd[w] : ~tile.crowd[w]); bits != 0; bits &= bits - 1) {
      visit(32 * w + __ffs(static_cast<int>(bits)) - 1);
    }
  }
}

// The first object of a tile that is no crowd region; -1 if there is none.
__device__ inline int first_object(const uint32_t* crowd, int count) {
  for (int w = 0; 32 * w < count; ++w) {
    if (const int found = __ffs(static_cast<int>(~crowd[w])); found > 0) {
      return 32 * w + found - 1 < count ? 32 * w + found - 1 : -1;
    }
  }
  return -1;
}

template <class T>
__global__ void __launch_bounds__(kMatchThreads) match_kernel(const Matching<T> matching) {
  const MatchTile<T> tile;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x;
  const bool exists = n < matching.count;
  const Box<T> mine = exists ? box_at(matching.boxes, n) : no_bounds<T>();
  const T area = exists ? area_of(mine) : T(0);
  find_bounds(tile, mine);
  T best = -1, covered = 0;
  int64_t index = 0;
  for (int64_t begin = 0; begin < matching.objects_count; begin += kMatchThreads) {
    load_objects(tile, matching, begin);
    const int count = static_cast<int>(min(matching.objects_count - begin, static_cast<int64_t>(kMatchThreads)));
    if (best < T(0)) {
      if (const int first = first_object(tile.crowd, count); first >= 0) {
        best = 0;
        index = begin + first;
      }
    }
    for_each_near(tile, false, [&](int o) {
      const Box<T> object = tile.objects[o];
      const T iou = exists ? iou_of(object, area_of(object), mine, area) : T(0);
      if (iou > T(0)) {
        atomicMax(tile.top + o, bits_of(iou));
      }
      if (iou > best) {
        best = iou;
        index = begin + o;
      }
    });
    for_each_near(tile, true, [&](int o) {
      const T share = share_of(mine, area, tile.objects[o]);
      covered = share > covered ? share : covered;
    });
    __syncthreads();
    if (tile.top[threadIdx.x] > 0) {
      atomicMax(matching.highest + begin + threadIdx.x, tile.top[threadIdx.x]);
    }
    __syncthreads();
  }
  if (exists) {
    matching.iou[n] = best;
    matching.index[n] = index;
    matching.covered[n] = covered;
  }
}

template <class T>
__global__ void __launch_bounds__(kMatchThreads) nearest_kernel(const Matching<T> matching) {
  const MatchTile<T> tile;
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x;
  const bool exists = n < matching.count;
  const Box<T> mine = exists ? box_at(matching.boxes, n) : no_bounds<T>();
  const T area = exists ? area_of(mine) : T(0);
  find_bounds(tile, mine);
  bool nearest = false;
  for (int64_t begin = 0; begin < matching.objects_count; begin += kMatchThreads) {
    load_objects(tile, matching, begin);
    for_each_near(tile, false, [&](int o) {
      const Box<T> object = tile.objects[o];
      const T highest = value_of(matching.highest[begin + o]);
      const T iou = exists ? iou_of(object, area_of(object), mine, area) : T(0);
      nearest = nearest || (iou > T(0) && iou == highest);
    });
    __syncthreads();
  }
  if (exists) {
    matching.nearest[n] = nearest;
  }
}

template <class T>
void match(const Matching<T>& matching, void* stream) {
  const int64_t blocks = divide_up(matching.count, kMatchThreads);
  clear(matching.highest, matching.objects_count * sizeof(match_bits_t<T>), stream);
  launch(match_kernel<T>, blocks, dim3(kMatchThreads), MatchTile<T>::bytes(), stream, matching);
  launch(nearest_kernel<T>, blocks, dim3(kMatchThreads), MatchTile<T>::bytes(), stream, matching);
}

template void match(const Matching<float>& matching, void* stream);
template void match(const Matching<double>& matching, void* stream);

}  // namespace aligned_rcnn::cuda
