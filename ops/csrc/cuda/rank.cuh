// Ranking boxes by the distance of their Gaussians from objects': a thread per box, the objects in tiles in shared
// memory.
//
// An object's k-th least distance is found by rounds, each of which finds the next least distance of all and counts the
// boxes that are as near. Distances are kept as the complements of their bits, which fall as the distances rise: the
// least one is then a maximum, taken by atomics in any order, and 0, to which memory is cleared, means none.
#pragma once

#include "../gaussian.h"
#include "match.cuh"

namespace aligned_rcnn::cuda {

template <class T>
__device__ inline match_bits_t<T> key_of(T distance) {
  return distance < T(INFINITY) ? ~bits_of(distance) : 0;  // 0 for NaN, too
}

template <class T>
__device__ inline Gaussian<T> gaussian_at(const T* rows, int64_t count, int64_t i) {
  return {rows[i], rows[count + i], rows[2 * count + i], rows[3 * count + i], rows[4 * count + i]};
}

// Runs visit(o, its Measure) for all objects but crowd regions, by rising number; all threads of the block take part.
template <class Measure, class T, class Visit>
__device__ inline void for_each_object(const Ranking<T>& ranking, const Visit& visit) {
  SharedMemory memory;
  Gaussian<T>* tile = memory.take<Gaussian<T>>(kMatchThreads);
  bool* crowd = memory.take<bool>(kMatchThreads);
  for (int64_t begin = 0; begin < ranking.objects_count; begin += kMatchThreads) {
    const int64_t left = ranking.objects_count - begin;
    const int count = left < kMatchThreads ? static_cast<int>(left) : kMatchThreads;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) {
      tile[threadIdx.x] = gaussian_at(ranking.objects, ranking.objects_count, begin + threadIdx.x);
      crowd[threadIdx.x] = ranking.crowd[begin + threadIdx.x];
    }
    __syncthreads();
    for (int o = 0; o < count; ++o) {
      if (!crowd[o]) {
        visit(begin + o, Measure(tile[o]));
      }
    }
  }
}

template <class T>
constexpr size_t rank_bytes() {
  return shared_bytes<Gaussian<T>>(kMatchThreads) + shared_bytes<bool>(kMatchThreads);
}

// A thread's box; one of NaN where there is none.
template <class T>
__device__ inline Gaussian<T> own_box(const Ranking<T>& ranking, int64_t n) {
  const T nan = T(NAN);
  return n < ranking.count ? gaussian_at(ranking.boxes, ranking.count, n) : Gaussian<T>{nan, nan, nan, nan, nan};
}

// Finds the least distance of each object beyond those found.
template <class Measure, class T>
__global__ void __launch_bounds__(kMatchThreads) next_kernel(const Ranking<T> ranking) {
  const Gaussian<T> mine = own_box(ranking, static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x);
  for_each_object<Measure>(ranking, [&](int64_t o, const Measure& measure) {
    const match_bits_t<T> key = key_of(measure.from(mine));
    const bool beyond = ranking.ranked_boxes[o] == 0 || key < ranking.limit[o];
    if (beyond && ranking.ranked_boxes[o] < ranking.topk && key > ranking.next[o]) {
      atomicMax(ranking.next + o, key);
    }
  });
}

// Counts the boxes at that distance.
template <class Measure, class T>
__global__ void __launch_bounds__(kMatchThreads) count_kernel(const Ranking<T> ranking) {
  const Gaussian<T> mine = own_box(ranking, static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x);
  for_each_object<Measure>(ranking, [&](int64_t o, const Measure& measure) {
    const match_bits_t<T> key = key_of(measure.from(mine));
    if (key > 0 && key == ranking.next[o]) {
      atomicAdd(ranking.found + o, 1u);
    }
  });
}

// Makes that distance the object's limit, and begins anew.
template <class T>
__global__ void __launch_bounds__(kMatchThreads) advance_kernel(const Ranking<T> ranking) {
  const int64_t o = static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x;
  if (o < ranking.objects_count) {
    if (ranking.next[o] > 0) {
      ranking.limit[o] = ranking.next[o];
      ranking.ranked_boxes[o] += ranking.found[o];
    }
    ranking.next[o] = 0;
    ranking.found[o] = 0;
  }
}

template <class Measure, class T>
__global__ void __launch_bounds__(kMatchThreads) rank_kernel(const Ranking<T> ranking) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kMatchThreads + threadIdx.x;
  const Gaussian<T> mine = own_box(ranking, n);
  T least = T(INFINITY), within = T(INFINITY);
  int64_t index = -1, first = -1, ranked = -1;
  for_each_object<Measure>(ranking, [&](int64_t o, const Measure& measure) {
    const T distance = measure.from(mine);
    first = first < 0 ? o : first;
    if (distance < least) {
      least = distance;
      index = o;
    }
    if (distance < within && key_of(distance) >= ranking.limit[o]) {
      within = distance;
      ranked = o;
    }
  });
  if (n < ranking.count) {
    ranking.distance[n] = least;
    ranking.index[n] = index >= 0 ? index : first >= 0 ? first : 0;
    ranking.ranked[n] = ranked;
  }
}

template <class Measure, class T>
void rank_by(const Ranking<T>& ranking, void* stream) {
  const int64_t blocks = divide_up(ranking.count, kMatchThreads);
  const int64_t object_blocks = divide_up(ranking.objects_count, kMatchThreads);
  const dim3 threads(kMatchThreads);
  clear(ranking.next, ranking.objects_count * sizeof(match_bits_t<T>), stream);
  clear(ranking.limit, ranking.objects_count * sizeof(match_bits_t<T>), stream);
  clear(ranking.found, ranking.objects_count * sizeof(unsigned), stream);
  clear(ranking.ranked_boxes, ranking.objects_count * sizeof(unsigned), stream);
  for (unsigned round = 0; round < ranking.topk; ++round) {
    launch(next_kernel<Measure, T>, blocks, threads, rank_bytes<T>(), stream, ranking);
    launch(count_kernel<Measure, T>, blocks, threads, rank_bytes<T>(), stream, ranking);
    launch(advance_kernel<T>, object_blocks, threads, 0, stream, ranking);
  }
  launch(rank_kernel<Measure, T>, blocks, threads, rank_bytes<T>(), stream, ranking);
}

template <class T>
void rank(const Ranking<T>& ranking, Distance distance, void* stream) {
  if (distance == Distance::wasserstein) {
    rank_by<Wasserstein<T>>(ranking, stream);
  } else {
    rank_by<Divergence<T>>(ranking, stream);
  }
}

template void rank(const Ranking<float>& ranking, Distance distance, void* stream);
template void rank(const Ranking<double>& ranking, Distance distance, void* stream);

}  // namespace aligned_rcnn::cuda
