// Averages, forward: weighted sums over cells.
//
// A block pools some bins of one RoI. It writes the weights of their rows and columns, added up by cell, to shared
// memory; then each group of lanes pools one bin at a time, each lane 16 bytes of channels at a time.
#pragma once

#include "rois.cuh"

namespace aligned_rcnn::cuda {

constexpr int kThreads = 256;
constexpr int kMaxBinsWide = 32;  // most bins of a block in a row
constexpr int kBinsOfBlock = 64;  // about the most in all
constexpr int kTableBytes = 32 << 10;

// How the bins of a RoI are divided among blocks, and the size of a block's tables.
struct AveragePlan {
  int high, wide;      // bins per block, down and across
  int down, across;    // blocks per RoI, down and across
  int entries;         // capacity of the table of weights
  int entries_of_bin;  // fixed number of table entries per bin; 0: bins are packed one behind the other
};

template <class T>
AveragePlan plan_average(const Query<T>& query) {
  AveragePlan plan;
  plan.across = static_cast<int>(divide_up(query.pooled_width, kMaxBinsWide));
  plan.wide = static_cast<int>(divide_up(query.pooled_width, plan.across));
  const int high = kBinsOfBlock / plan.wide;
  plan.down = static_cast<int>(divide_up(query.pooled_height, high));
  plan.high = static_cast<int>(divide_up(query.pooled_height, plan.down));
  const int64_t capacity = kTableBytes / static_cast<int64_t>(sizeof(Tap<T>));
  const int64_t of_bin = 2 * static_cast<int64_t>(query.sampling_ratio);  // a sample touches two cells
  const bool fixed = samples_points(query.rule) && of_bin > 0 && of_bin * (plan.high + plan.wide) <= capacity;
  plan.entries_of_bin = fixed ? static_cast<int>(of_bin) : 0;
  plan.entries = static_cast<int>(fixed ? of_bin * (plan.high + plan.wide) : capacity);
  return plan;
}

// The bins that one block pools, all of one RoI.
struct Bins {
  int64_t k;
  int y, x;        // row and column of the first bin
  int high, wide;  // number of rows and columns
};

__device__ inline Bins bins_of(int64_t item, const AveragePlan& plan, int pooled_height, int pooled_width) {
  const int64_t blocks = static_cast<int64_t>(plan.down) * plan.across;
  const int block = static_cast<int>(item % blocks);
  Bins bins{item / blocks, block / plan.across * plan.high, block % plan.across * plan.wide, 0, 0};
  bins.high = min(plan.high, pooled_height - bins.y);
  bins.wide = min(plan.wide, pooled_width - bins.x);
  return bins;
}

struct Span {
  int begin, end;
};

// Fills the tables of a block's bins, rows before columns. Returns false in all threads if the weights do not fit.
template <bool Fixed, class T>
__device__ bool fill_tables(const Query<T>& query, const Pyramid& pyramid, const AveragePlan& plan, const Bins& bins,
                            int level, Span* spans, int* counts, Tap<T>* entries) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const int total = bins.high + bins.wide;
  const auto for_each_tap_of = [&](int b, auto&& emit) {
    if (level >= 0) {
      const Side side = b < bins.high ? Side::rows : Side::columns;
      for_each_tap(axis_of(query, pyramid, level, bins.k, side), b < bins.high ? bins.y + b : bins.x + b - bins.high,
                   emit);
    }
  };
  if constexpr (!Fixed) {
    for (int b = thread; b < total; b += threads) {
      int count = 0;
      for_each_tap_of(b, [&](int, T) { ++count; });
      counts[b] = count;
    }
    __syncthreads();
    int64_t needed = 0;
    for (int b = 0; b < total; ++b) {
      needed += counts[b];
    }
    if (needed > plan.entries) {
      return false;
    }
  }
  for (int b = thread; b < total; b += threads) {
    int begin = b * plan.entries_of_bin;
    if constexpr (!Fixed) {
      begin = 0;
      for (int before = 0; before < b; ++before) {
        begin += counts[before];
      }
    }
    int end = begin;
    for_each_tap_of(b, [&](int cell, T weight) { entries[end++] = {cell, weight}; });
    spans[b] = {begin, end};
  }
  __syncthreads();
  return true;
}

template <int N, class S, class T>
__device__ inline void add_weighted(T weight, const S* from, T (&sum)[N]) {
  const Pack<S, N> pack = load<N>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    sum[i] = multiply_add(weight, static_cast<T>(widen(pack.value[i])), sum[i]);
  }
}

// Adds the weighted cells of bin (y, x) of a block to `sum`; `map` points to the channel in the map's first cell.
template <class S, int N, bool Fixed, class T>
__device__ inline void sum_bin(const Query<T>& query, const Pyramid& pyramid, const Bins& bins, int level, bool stored,
                               const Span* spans, const Tap<T>* entries, int y, int x, const S* map, T (&sum)[N]) {
  const int64_t channels = pyramid.channels, row_stride = pyramid.levels[level].width * channels;
  if (Fixed || stored) {
    const Span row_span = spans[y], column_span = spans[bins.high + x];
    for (int r = row_span.begin; r < row_span.end; ++r) {
      const Tap<T> row = entries[r];
      const S* line = map + row.index * row_stride;
#pragma unroll 4
      for (int i = column_span.begin; i < column_span.end; ++i) {
        const Tap<T> column = entries[i];
        add_weighted<N>(row.weight * column.weight, line + column.index * channels, sum);
      }
    }
  } else {  // the weights did not fit: an adaptive grid on thousands of cells
    const Axis<T> rows = axis_of(query, pyramid, level, bins.k, Side::rows);
    const Axis<T> columns = axis_of(query, pyramid, level, bins.k, Side::columns);
    for_each_tap(rows, bins.y + y, [&](int row, T row_weight) {
      const S* line = map + row * row_stride;
      for_each_tap(columns, bins.x + x,
                   [&](int column, T weight) { add_weighted<N>(row_weight * weight, line + column * channels, sum); });
    });
  }
}

template <class S, int N, bool Fixed>
__global__ void __launch_bounds__(kThreads) average_kernel(const Pyramid pyramid, const Query<compute_t<S>> query,
                                                           const AveragePlan plan, int64_t items, S* out) {
  using T = compute_t<S>;
  SharedMemory shared;
  Span* spans = shared.take<Span>(plan.high + plan.wide);
  int* counts = shared.take<int>(Fixed ? 0 : plan.high + plan.wide);
  Tap<T>* entries = shared.take<Tap<T>>(plan.entries);
  const int64_t channels = pyramid.channels;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Bins bins = bins_of(item, plan, query.pooled_height, query.pooled_width);
    const Site site = site_of(query, pyramid, bins.k);
    const bool stored = fill_tables<Fixed>(query, pyramid, plan, bins, site.level, spans, counts, entries);
    const int level = site.level < 0 ? 0 : site.level;  // a RoI without a map has no weights, so nothing is read
    const S* map = map_of<const S>(pyramid, level, site.image);
    for (int bin = threadIdx.y; bin < bins.high * bins.wide; bin += blockDim.y) {
      const int y = bin / bins.wide, x = bin % bins.wide;
      S* to = out + ((bins.k * query.pooled_height + bins.y + y) * query.pooled_width + bins.x + x) * channels;
      for (int64_t c = threadIdx.x * N; c < channels; c += blockDim.x * N) {
        T sum[N] = {};
        sum_bin<S, N, Fixed>(query, pyramid, bins, level, stored, spans, entries, y, x, map + c, sum);
        store_rounded(sum, to + c);
      }
    }
    __syncthreads();  // before the next item overwrites the tables
  }
}

// Position-sensitive: bin (ph, pw) of channel c is the average of channel (c * PH + ph) * PW + pw of the features. Each
// lane pools one channel at a time.
template <class S>
__global__ void __launch_bounds__(kThreads) ps_average_kernel(const Pyramid pyramid, const Query<compute_t<S>> query,
                                                              const AveragePlan plan, int64_t items, S* out) {
  using T = compute_t<S>;
  SharedMemory shared;
  Span* spans = shared.take<Span>(plan.high + plan.wide);
  int* counts = shared.take<int>(plan.high + plan.wide);
  Tap<T>* entries = shared.take<Tap<T>>(plan.entries);
  const int64_t all_bins = static_cast<int64_t>(query.pooled_height) * query.pooled_width;
  const int64_t channels = pyramid.channels, pooled_channels = channels / all_bins;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const Bins bins = bins_of(item, plan, query.pooled_height, query.pooled_width);
    const Site site = site_of(query, pyramid, bins.k);
    const bool stored = fill_tables<false>(query, pyramid, plan, bins, site.level, spans, counts, entries);
    const int level = site.level < 0 ? 0 : site.level;
    const S* map = map_of<const S>(pyramid, level, site.image);
    for (int bin = threadIdx.y; bin < bins.high * bins.wide; bin += blockDim.y) {
      const int y = bin / bins.wide, x = bin % bins.wide;
      const int64_t number = static_cast<int64_t>(bins.y + y) * query.pooled_width + bins.x + x;
      for (int64_t c = threadIdx.x; c < pooled_channels; c += blockDim.x) {
        T sum[1] = {};
        sum_bin<S, 1, false>(query, pyramid, bins, level, stored, spans, entries, y, x, map + c * all_bins + number,
                             sum);
        store_rounded(sum, out + (bins.k * all_bins + number) * pooled_channels + c);
      }
    }
    __syncthreads();  // before the next item overwrites the tables
  }
}

template <class S, int N, bool Fixed>
void launch_average(const Pyramid& features, const Query<compute_t<S>>& query, const AveragePlan& plan, S* out,
                    void* stream) {
  using T = compute_t<S>;
  const int lanes = lanes_for(divide_up(features.channels, N));
  const int64_t items = query.count * plan.down * plan.across;
  const int bins = plan.high + plan.wide;
  const size_t shared =
      shared_bytes<Span>(bins) + shared_bytes<int>(Fixed ? 0 : bins) + shared_bytes<Tap<T>>(plan.entries);
  launch(average_kernel<S, N, Fixed>, items < kMaxBlocks ? items : kMaxBlocks, dim3(lanes, kThreads / lanes), shared,
         stream, features, query, plan, items, out);
}

template <class S>
void Launches<S>::average(const Pyramid& features, const Query<T>& query, S* out, void* stream) {
  const AveragePlan plan = plan_average(query);
  if (features.aligned && plan.entries_of_bin > 0) {
    launch_average<S, kWide<S>, true>(features, query, plan, out, stream);
  } else if (features.aligned) {
    launch_average<S, kWide<S>, false>(features, query, plan, out, stream);
  } else {
    launch_average<S, 1, false>(features, query, plan, out, stream);
  }
}

template <class S>
void Launches<S>::ps_average(const Pyramid& features, const Query<T>& query, S* out, void* stream) {
  AveragePlan plan = plan_average(query);
  plan.entries = kTableBytes / static_cast<int>(sizeof(Tap<T>));
  const int bins = plan.high + plan.wide;
  const int lanes = lanes_for(features.channels / query.pooled_height / query.pooled_width);
  const int64_t items = query.count * plan.down * plan.across;
  const size_t shared = shared_bytes<Span>(bins) + shared_bytes<int>(bins) + shared_bytes<Tap<T>>(plan.entries);
  launch(ps_average_kernel<S>, items < kMaxBlocks ? items : kMaxBlocks, dim3(lanes, kThreads / lanes), shared, stream,
         features, query, plan, items, out);
}

}  // namespace aligned_rcnn::cuda
