// Maxima, backward: tiles gather as for averages; the gradient of each bin and channel goes to one sample or cell.
#pragma once

#include "average_backward.cuh"
#include "maximum.cuh"

namespace aligned_rcnn::cuda {

// The axes of a batch of RoIs, the places of their bins, and masks of the bins that touch a tile (see GatherTables).
template <class T>
struct PlaceTables {
  uint32_t* row_bins;     // [batch]
  uint32_t* column_bins;  // [batch, kTile]
  Axis<T>* axes;          // [batch, 2]
  Range* ranges;          // [batch, high + wide]

  __device__ PlaceTables(SharedMemory& shared, const GatherPlan& plan)
      : row_bins(shared.take<uint32_t>(plan.batch)),
        column_bins(shared.take<uint32_t>(plan.batch * kTile)),
        axes(shared.take<Axis<T>>(plan.batch * 2)),
        ranges(shared.take<Range>(plan.batch * (plan.high + plan.wide))) {}

  static size_t bytes(const GatherPlan& plan) {
    return shared_bytes<uint32_t>(plan.batch) + shared_bytes<uint32_t>(plan.batch * kTile) +
           shared_bytes<Axis<T>>(plan.batch * 2) + shared_bytes<Range>(plan.batch * (plan.high + plan.wide));
  }

  __device__ void fill(const Query<T>& query, const Pyramid& pyramid, const Tile& tile, const int64_t* list, int count,
                       int ph, int pw, int high, int wide) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < count * kTile; i += threads) {
      column_bins[i] = 0;
      if (i < count) {
        row_bins[i] = 0;
      }
    }
    __syncthreads();
    const int bins = high + wide;
    for (int i = thread; i < count * bins; i += threads) {
      const int roi = i / bins, b = i % bins;
      const bool row = b < high;
      const int bin = row ? ph + b : pw + b - high;
      const Axis<T> axis = axis_of(query, pyramid, tile.level, list[roi], row ? Side::rows : Side::columns);
      ranges[i] = places_of_bin(axis, bin);
      if (b == 0 || b == high) {
        axes[roi * 2 + (row ? 0 : 1)] = axis;
      }
      const auto touch = [&](int cell) {
        if (row && cell >= tile.y && cell < tile.y + kTile) {
          atomicOr(row_bins + roi, 1u << b);
        } else if (!row && cell >= tile.x && cell < tile.x + kTile) {
          atomicOr(column_bins + roi * kTile + cell - tile.x, 1u << (b - high));
        }
      };
      const int begin = row ? tile.y : tile.x;
      if (samples_points(axis.rule)) {
        const Range samples = samples_near(axis, bin, begin);
        for (int sample = samples.begin; sample < samples.end; ++sample) {
          const Place<T> place = place_of(sample_point(axis, bin, sample), axis.size);
          touch(place.low);
          if (place.fraction != T(0)) {
            touch(place.low + 1);
          }
        }
      } else {
        for (int cell = max(ranges[i].begin, begin); cell < min(ranges[i].end, begin + kTile); ++cell) {
          touch(cell);
        }
      }
    }
    __syncthreads();
  }
};

// The weight of a cell in a place on an axis.
template <class T>
__device__ inline T share_of(Place<T> place, int cell) {
  if (cell == place.low) {
    return T(1) - place.fraction;
  }
  return cell == place.low + 1 ? place.fraction : T(0);
}

template <class S, int N, bool Interpolates>
__global__ void __launch_bounds__(256)
    maximum_backward_kernel(const Pyramid pyramid, const Query<compute_t<S>> query, const Tiles tiles,
                            const Binning binning, const GatherPlan plan, const S* grad, const int32_t* argmax) {
  using T = compute_t<S>;
  SharedMemory shared;
  uint32_t* kept = shared.take<uint32_t>(kListedWords);
  int64_t* list = shared.take<int64_t>(kListed);
  PlaceTables<T> tables(shared, plan);
  const int64_t channels = pyramid.channels;
  for (int64_t item = blockIdx.x; item < tiles.total * plan.chunks; item += gridDim.x) {
    const Tile tile = tile_of(tiles, pyramid.count, item / plan.chunks);
    const LevelMap& map = pyramid.levels[tile.level];
    const int64_t c = (item % plan.chunks * blockDim.x + threadIdx.x) * N;
    const int x = tile.x + threadIdx.y;
    T sums[kTile][N] = {};
    for (int64_t word = 0; word < binning.words; word += kListedWords) {
      const int listed = list_rois(binning, tile, word, kept, list);
      for (int first = 0; first < listed; first += plan.batch) {
        const int count = min(plan.batch, listed - first);
        for (int ph = 0; ph < query.pooled_height; ph += plan.high) {
          for (int pw = 0; pw < query.pooled_width; pw += plan.wide) {
            const int high = min(plan.high, query.pooled_height - ph), wide = min(plan.wide, query.pooled_width - pw);
            tables.fill(query, pyramid, tile, list + first, count, ph, pw, high, wide);
            for (int i = 0; c < channels && i < count; ++i) {
              const uint32_t column_bins = tables.column_bins[i * kTile + threadIdx.y];
              uint32_t row_bins = column_bins == 0 ? 0 : tables.row_bins[i];
              for (; row_bins != 0; row_bins &= row_bins - 1) {
                const int bin_y = __ffs(static_cast<int>(row_bins)) - 1;
                for (uint32_t rest = column_bins; rest != 0; rest &= rest - 1) {
                  const int bin_x = __ffs(static_cast<int>(rest)) - 1;
                  const int64_t at =
                      ((list[first + i] * query.pooled_height + ph + bin_y) * query.pooled_width + pw + bin_x) *
                          channels +
                      c;
                  const Range row_range = tables.ranges[i * (high + wide) + bin_y];
                  const Range column_range = tables.ranges[i * (high + wide) + high + bin_x];
                  const Pack<int32_t, N> arg = load<N>(argmax + at);
                  T value[N];
                  load_widened(grad + at, value);
                  const int divisor = Interpolates ? column_range.end - column_range.begin : map.width;
#pragma unroll
                  for (int n = 0; n < N; ++n) {
                    if (arg.value[n] < 0) {
                      continue;
                    }
                    const int major = arg.value[n] / divisor, minor = arg.value[n] % divisor;
                    Place<T> row{major, T(0)}, column{minor, T(0)};
                    if constexpr (Interpolates) {
                      const Axis<T>* axes = tables.axes + 2 * i;
                      row = place_of(sample_point(axes[0], ph + bin_y, row_range.begin + major), axes[0].size);
                      column = place_of(sample_point(axes[1], pw + bin_x, column_range.begin + minor), axes[1].size);
                    }
                    const T column_share = share_of(column, x);
#pragma unroll
                    for (int r = 0; r < kTile; ++r) {
                      const T row_share = share_of(row, tile.y + r);
                      if (row_share != T(0) && column_share != T(0)) {
                        sums[r][n] = multiply_add(row_share * column_share, value[n], sums[r][n]);
                      }
                    }
                  }
                }
              }
            }
            __syncthreads();  // before the next batch overwrites the tables
          }
        }
      }
    }
    store_tile<S>(pyramid, tile, x, c, sums);
  }
}

template <class S, int N, bool Interpolates>
void launch_maximum_backward(const Pyramid& gradients, const Query<compute_t<S>>& query, const Binning& binning,
                             const S* grad, const int32_t* argmax, void* stream) {
  using T = compute_t<S>;
  GatherPlan plan = plan_gather(query);
  const int lanes = lanes_for(divide_up(gradients.channels, N));
  plan.chunks = divide_up(gradients.channels, static_cast<int64_t>(lanes) * N);
  const Tiles tiles = make_tiles(gradients, 0);
  const int64_t items = tiles.total * plan.chunks;
  const size_t shared = list_bytes() + PlaceTables<T>::bytes(plan);
  launch(maximum_backward_kernel<S, N, Interpolates>, items < kMaxBlocks ? items : kMaxBlocks, dim3(lanes, kTile),
         shared, stream, gradients, query, tiles, binning, plan, grad, argmax);
}

template <class S>
void Launches<S>::maximum_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning,
                                   const S* grad, const int32_t* argmax, void* stream) {
  launch_binning(gradients, query, binning, stream);
  const bool interpolates = samples_points(query.rule);
  if (gradients.aligned && interpolates) {
    launch_maximum_backward<S, kWide<S>, true>(gradients, query, binning, grad, argmax, stream);
  } else if (gradients.aligned) {
    launch_maximum_backward<S, kWide<S>, false>(gradients, query, binning, grad, argmax, stream);
  } else if (interpolates) {
    launch_maximum_backward<S, 1, true>(gradients, query, binning, grad, argmax, stream);
  } else {
    launch_maximum_backward<S, 1, false>(gradients, query, binning, grad, argmax, stream);
  }
}

}  // namespace aligned_rcnn::cuda
