// Maxima, forward: RoIPool, and the maximum over RoIAlign's samples, with the sample or cell that attains each.
#pragma once

#include "average.cuh"

namespace aligned_rcnn::cuda {

constexpr float kLowest = -3.40282346638528859812e+38f;  // RoIPool starts at the lowest float, for doubles too

// The places of a bin on an axis: its samples within reach, or its cells.
template <class T>
__device__ inline Range places_of_bin(const Axis<T>& axis, int bin) {
  return samples_points(axis.rule) ? samples_in_reach(axis, bin) : cells_of(axis, bin);
}

// Interpolates between up to four cells; cells of weight 0 are not read: they may lie off the map or hold NaN.
template <int N, class S, class T>
__device__ inline void interpolate(const S* cell, T fy, T fx, int64_t row_stride, int64_t channels, T (&value)[N]) {
  load_widened(cell, value);
  const T weight = (T(1) - fy) * (T(1) - fx);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    value[i] = weight * value[i];
  }
  if (fx != T(0)) {
    add_weighted<N>((T(1) - fy) * fx, cell + channels, value);
  }
  if (fy != T(0)) {
    add_weighted<N>(fy * (T(1) - fx), cell + row_stride, value);
    if (fx != T(0)) {
      add_weighted<N>(fy * fx, cell + row_stride + channels, value);
    }
  }
}

// Of samples (Interpolates), the first that attains the maximum counts, NaN propagates, and the maximum is at least 0
// where some samples are out of reach. Of cells, NaN is never taken. argmax: the number of the sample in its bin, or
// the cell's y * width + x; -1: nothing gets the gradient.
template <class S, int N, bool Interpolates>
__global__ void __launch_bounds__(kThreads)
    maximum_kernel(const Pyramid pyramid, const Query<compute_t<S>> query, const AveragePlan plan, int64_t items,
                   S* out, int32_t* argmax) {
  using T = compute_t<S>;
  SharedMemory shared;
  Axis<T>* axes = shared.take<Axis<T>>(2);
  Range* ranges = shared.take<Range>(plan.high + plan.wide);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int64_t channels = pyramid.channels;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Bins bins = bins_of(item, plan, query.pooled_height, query.pooled_width);
    const Site site = site_of(query, pyramid, bins.k);
    const int level = site.level < 0 ? 0 : site.level;  // a RoI without a map has empty ranges, so nothing is read
    const LevelMap& level_map = pyramid.levels[level];
    for (int b = thread; b < bins.high + bins.wide; b += threads) {
      const bool row = b < bins.high;
      const int64_t k = bins.k;
      const Axis<T> axis = axis_of(query, pyramid, level, k, row ? Side::rows : Side::columns);
      ranges[b] = site.level < 0 ? Range{0, 0} : places_of_bin(axis, row ? bins.y + b : bins.x + b - bins.high);
      if (b == 0 || b == bins.high) {
        axes[row ? 0 : 1] = axis;
      }
    }
    __syncthreads();
    const Axis<T> rows = axes[0], columns = axes[1];
    const int64_t row_stride = level_map.width * channels;
    const S* map = map_of<const S>(pyramid, level, site.image);
    for (int bin = threadIdx.y; bin < bins.high * bins.wide; bin += blockDim.y) {
      const int y = bin / bins.wide, x = bin % bins.wide;
      const Range row_range = ranges[y], column_range = ranges[bins.high + x];
      const int high = row_range.end - row_range.begin, wide = column_range.end - column_range.begin;
      const int64_t at = ((bins.k * query.pooled_height + bins.y + y) * query.pooled_width + bins.x + x) * channels;
      for (int64_t c = threadIdx.x * N; c < channels; c += blockDim.x * N) {
        T best[N];
        Pack<int32_t, N> arg;
#pragma unroll
        for (int i = 0; i < N; ++i) {
          best[i] = Interpolates ? -T(INFINITY) : T(kLowest);
          arg.value[i] = -1;
        }
        for (int r = 0; r < high; ++r) {
          Place<T> row{row_range.begin + r, T(0)};
          if constexpr (Interpolates) {
            row = place_of(sample_point(rows, bins.y + y, row_range.begin + r), rows.size);
          }
          const S* line = map + row.low * row_stride + c;
          for (int s = 0; s < wide; ++s) {
            T value[N];
            int32_t number;
            if constexpr (Interpolates) {
              const Place<T> column = place_of(sample_point(columns, bins.x + x, column_range.begin + s), columns.size);
              interpolate(line + column.low * channels, row.fraction, column.fraction, row_stride, channels, value);
              number = r * wide + s;
            } else {
              const int column = column_range.begin + s;
              load_widened(line + column * channels, value);
              number = static_cast<int32_t>(row.low * static_cast<int64_t>(columns.size) + column);
            }
#pragma unroll
            for (int i = 0; i < N; ++i) {
              const bool first_nan = Interpolates && value[i] != value[i] && best[i] == best[i];
              if (value[i] > best[i] || first_nan) {
                best[i] = value[i];
                arg.value[i] = number;
              }
            }
          }
        }
        const bool empty = high == 0 || wide == 0;
        const bool zeros = Interpolates && (high < rows.grid || wide < columns.grid);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (empty) {
            best[i] = T(0);
          } else if (zeros && best[i] < T(0)) {
            best[i] = T(0);
            arg.value[i] = -1;
          }
        }
        store_rounded(best, out + at + c);
        store(arg, argmax + at + c);
      }
    }
    __syncthreads();  // before the next item overwrites the ranges
  }
}

template <class S, int N, bool Interpolates>
void launch_maximum(const Pyramid& features, const Query<compute_t<S>>& query, S* out, int32_t* argmax, void* stream) {
  const AveragePlan plan = plan_average(query);
  const int lanes = lanes_for(divide_up(features.channels, N));
  const int64_t items = query.count * plan.down * plan.across;
  const size_t shared = shared_bytes<Axis<compute_t<S>>>(2) + shared_bytes<Range>(plan.high + plan.wide);
  launch(maximum_kernel<S, N, Interpolates>, items < kMaxBlocks ? items : kMaxBlocks, dim3(lanes, kThreads / lanes),
         shared, stream, features, query, plan, items, out, argmax);
}

template <class S>
void Launches<S>::maximum(const Pyramid& features, const Query<T>& query, S* out, int32_t* argmax, void* stream) {
  const bool interpolates = samples_points(query.rule);
  if (features.aligned && interpolates) {
    launch_maximum<S, kWide<S>, true>(features, query, out, argmax, stream);
  } else if (features.aligned) {
    launch_maximum<S, kWide<S>, false>(features, query, out, argmax, stream);
  } else if (interpolates) {
    launch_maximum<S, 1, true>(features, query, out, argmax, stream);
  } else {
    launch_maximum<S, 1, false>(features, query, out, argmax, stream);
  }
}

}  // namespace aligned_rcnn::cuda
