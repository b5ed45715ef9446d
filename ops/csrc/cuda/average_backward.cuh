// Averages, backward: each tile of a gradient gathers from the RoIs that touch it, and is written once.
//
// A thread sums one column of a tile for 16 bytes of channels. The weights of a batch of RoIs are in shared memory, by
// bin and by cell of the tile, with bit masks of the bins that touch the tile's rows and each of its columns.
#pragma once

#include "binning.cuh"

namespace aligned_rcnn::cuda {

constexpr int kGatherBytes = 24 << 10;  // size of a batch's weights
constexpr int kMaxBatch = 16;           // most RoIs in a batch
constexpr int kMaxBins = 32;            // most bins of an axis at a time: the bits of a mask

struct GatherPlan {
  int high, wide;  // bins at a time
  int batch;       // RoIs at a time
  int64_t chunks;  // work items per tile, each with its own channels
};

template <class T>
GatherPlan plan_gather(const Query<T>& query) {
  GatherPlan plan{};
  plan.wide = query.pooled_width < kMaxBins ? query.pooled_width : kMaxBins;
  plan.high = query.pooled_height < kMaxBins ? query.pooled_height : kMaxBins;
  if (plan.wide < query.pooled_width) {
    plan.high = 1;  // row by row, and one RoI at a time (below): the order of summation stays the same
  }
  const int fit = kGatherBytes / ((plan.high + plan.wide) * kTile * static_cast<int>(sizeof(T)));
  plan.batch = fit < kMaxBatch ? fit : kMaxBatch;
  if (plan.high < query.pooled_height || plan.wide < query.pooled_width) {
    plan.batch = 1;
  }
  return plan;
}

// The samples of a bin within reach that may touch the tile's cells from `begin` on, found by bisection.
template <class T>
__device__ inline Range samples_near(const Axis<T>& axis, int bin, int begin) {
  Range range = samples_in_reach(axis, bin);
  const bool rising = axis.bin >= T(0);
  const T low = static_cast<T>(begin) - T(1), high = static_cast<T>(begin) + T(kTile);
  const bool open = begin + kTile >= axis.size;  // the last tile: points beyond its last cell read that cell
  if (range.end - range.begin <= 4) {
    return range;
  }
  for (int side = 0; side < 2; ++side) {
    int from = range.begin, to = range.end;
    while (from < to) {
      const int middle = from + (to - from) / 2;
      const T point = sample_point(axis, bin, middle);
      const bool below = point < low, above = !open && point >= high;
      const bool before = side == 0 ? (rising ? below : above) : (rising ? !above : !below);
      if (before) {
        from = middle + 1;
      } else {
        to = middle;
      }
    }
    (side == 0 ? range.begin : range.end) = from;
  }
  return range;
}

template <class T, class Emit>
__device__ inline void for_each_tap_in_tile(const Axis<T>& axis, int bin, int begin, Emit&& emit) {
  const auto emit_inside = [&](int cell, T weight) {
    if (cell >= begin && cell < begin + kTile) {
      emit(cell - begin, weight);
    }
  };
  if (samples_points(axis.rule)) {
    for_each_tap_of_samples(axis, bin, samples_near(axis, bin, begin), emit_inside);
    return;
  }
  const Range cells = cells_of(axis, bin);
  for (int cell = max(cells.begin, begin); cell < min(cells.end, begin + kTile); ++cell) {
    emit(cell - begin, T(1) / static_cast<T>(cells.end - cells.begin));
  }
}

// The weights of a batch of RoIs for one tile. Bins are numbered from the first of those at a time, rows before
// columns.
template <class T>
struct GatherTables {
  uint32_t* row_bins;     // [batch]: mask of the bins that touch the tile's rows
  uint32_t* column_bins;  // [batch, kTile]: masks of the bins that touch each column
  T* weights;             // [batch, high + wide, kTile]: a bin's weight for a row or column of the tile, or 0

  __device__ GatherTables(SharedMemory& shared, const GatherPlan& plan)
      : row_bins(shared.take<uint32_t>(plan.batch)),
        column_bins(shared.take<uint32_t>(plan.batch * kTile)),
        weights(shared.take<T>(plan.batch * (plan.high + plan.wide) * kTile)) {}

  static size_t bytes(const GatherPlan& plan) {
    return shared_bytes<uint32_t>(plan.batch) + shared_bytes<uint32_t>(plan.batch * kTile) +
           shared_bytes<T>(plan.batch * (plan.high + plan.wide) * kTile);
  }

  // Fills the tables for the RoIs list[0 .. count) and their `high` x `wide` bins from (ph, pw) on.
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
      const int roi = i / bins, bin = i % bins;
      const bool row = bin < high;
      T* of_bin = weights + i * kTile;
      for (int cell = 0; cell < kTile; ++cell) {
        of_bin[cell] = T(0);
      }
      bool touches = false;
      const Axis<T> axis = axis_of(query, pyramid, tile.level, list[roi], row ? Side::rows : Side::columns);
      for_each_tap_in_tile(axis, row ? ph + bin : pw + bin - high, row ? tile.y : tile.x, [&](int cell, T weight) {
        of_bin[cell] = weight;
        touches = true;
        if (!row) {
          atomicOr(column_bins + roi * kTile + cell, 1u << (bin - high));
        }
      });
      if (row && touches) {
        atomicOr(row_bins + roi, 1u << bin);
      }
    }
    __syncthreads();
  }
};

template <class T, int N>
__device__ inline void add_to_rows(const T* row_weights, T column_weight, const T (&value)[N], T (&sums)[kTile][N]) {
#pragma unroll
  for (int row = 0; row < kTile; ++row) {
    if (row_weights[row] != T(0)) {  // since 0 * NaN is NaN
      const T weight = row_weights[row] * column_weight;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sums[row][i] = multiply_add(weight, value[i], sums[row][i]);
      }
    }
  }
}

// Writes a column of a tile, clipped to the map.
template <class S, int N>
__device__ inline void store_tile(const Pyramid& pyramid, const Tile& tile, int x, int64_t c,
                                  const compute_t<S> (&sums)[kTile][N]) {
  const LevelMap& map = pyramid.levels[tile.level];
  if (c < pyramid.channels && x < map.width) {
    S* to = map_of<S>(pyramid, tile.level, tile.image) + x * pyramid.channels + c;
#pragma unroll
    for (int row = 0; row < kTile; ++row) {
      if (tile.y + row < map.height) {
        store_rounded(sums[row], to + static_cast<int64_t>(tile.y + row) * map.width * pyramid.channels);
      }
    }
  }
}

// PositionSensitive: channel (c * PH + ph) * PW + pw of the gradient gathers from bin (ph, pw) of channel c only.
template <class S, int N, bool PositionSensitive>
__global__ void __launch_bounds__(256)
    average_backward_kernel(const Pyramid pyramid, const Query<compute_t<S>> query, const Tiles tiles,
                            const Binning binning, const GatherPlan plan, const S* grad) {
  using T = compute_t<S>;
  SharedMemory shared;
  uint32_t* kept = shared.take<uint32_t>(kListedWords);
  int64_t* list = shared.take<int64_t>(kListed);
  GatherTables<T> tables(shared, plan);
  const int64_t bins = static_cast<int64_t>(query.pooled_height) * query.pooled_width;
  const int64_t channels = pyramid.channels, pooled_channels = PositionSensitive ? channels / bins : channels;
  for (int64_t item = blockIdx.x; item < tiles.total * plan.chunks; item += gridDim.x) {
    const Tile tile = tile_of(tiles, pyramid.count, item / plan.chunks);
    const int64_t c = (item % plan.chunks * blockDim.x + threadIdx.x) * N;
    const int64_t own_bin = PositionSensitive ? c % bins : 0;
    const int64_t pooled_c = PositionSensitive ? c / bins : c;
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
              const T* rows = tables.weights + i * (high + wide) * kTile;
              const T* columns = rows + high * kTile + threadIdx.y;
              const S* from = grad + list[first + i] * bins * pooled_channels + pooled_c;
              uint32_t row_bins = tables.row_bins[i], column_bins = tables.column_bins[i * kTile + threadIdx.y];
              if constexpr (PositionSensitive) {
                const int64_t y = own_bin / query.pooled_width - ph, x = own_bin % query.pooled_width - pw;
                row_bins &= y >= 0 && y < high ? 1u << y : 0;
                column_bins &= x >= 0 && x < wide ? 1u << x : 0;
              }
              for (; row_bins != 0 && column_bins != 0; row_bins &= row_bins - 1) {
                const int y = __ffs(static_cast<int>(row_bins)) - 1;
                for (uint32_t rest = column_bins; rest != 0; rest &= rest - 1) {
                  const int x = __ffs(static_cast<int>(rest)) - 1;
                  T value[N];
                  load_widened(from + ((ph + y) * query.pooled_width + pw + x) * pooled_channels, value);
                  add_to_rows(rows + y * kTile, columns[x * kTile], value, sums);
                }
              }
            }
            __syncthreads();  // before the next batch overwrites the tables
          }
        }
      }
    }
    store_tile<S>(pyramid, tile, tile.x + threadIdx.y, c, sums);
  }
}

template <class S, int N, bool PositionSensitive>
void launch_average_backward(const Pyramid& gradients, const Query<compute_t<S>>& query, const Binning& binning,
                             const S* grad, void* stream) {
  using T = compute_t<S>;
  GatherPlan plan = plan_gather(query);
  const int lanes = lanes_for(divide_up(gradients.channels, N));
  plan.chunks = divide_up(gradients.channels, static_cast<int64_t>(lanes) * N);
  const Tiles tiles = make_tiles(gradients, 0);
  const int64_t items = tiles.total * plan.chunks;
  launch(average_backward_kernel<S, N, PositionSensitive>, items < kMaxBlocks ? items : kMaxBlocks, dim3(lanes, kTile),
         list_bytes() + GatherTables<T>::bytes(plan), stream, gradients, query, tiles, binning, plan, grad);
}

template <class S>
void Launches<S>::average_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning,
                                   const S* grad, void* stream) {
  launch_binning(gradients, query, binning, stream);
  if (gradients.aligned) {
    launch_average_backward<S, kWide<S>, false>(gradients, query, binning, grad, stream);
  } else {
    launch_average_backward<S, 1, false>(gradients, query, binning, grad, stream);
  }
}

template <class S>
void Launches<S>::ps_average_backward(const Pyramid& gradients, const Query<T>& query, const Binning& binning,
                                      const S* grad, void* stream) {
  launch_binning(gradients, query, binning, stream);
  launch_average_backward<S, 1, true>(gradients, query, binning, grad, stream);
}

}  // namespace aligned_rcnn::cuda
