// Bins RoIs into the tiles of a gradient that they touch.
//
// Each tile is written by one block, which visits the RoIs that touch it in the order of their indices: results are
// deterministic. The bins are bit masks: one bit for each RoI and group of tiles.
#pragma once

#include "rois.cuh"

namespace aligned_rcnn::cuda {

// The range of cells that the bins of an axis read.
template <class T>
__device__ inline Range cells_touched(const Axis<T>& axis, int bins) {
  Range touched{INT32_MAX, 0};
  const auto include = [&](int begin, int end) {
    touched.begin = min(touched.begin, begin);
    touched.end = max(touched.end, end);
  };
  for (int bin = 0; bin < bins; ++bin) {
    if (samples_points(axis.rule)) {
      const Range samples = samples_in_reach(axis, bin);
      if (samples.begin < samples.end) {  // points are monotone: the first and the last sample bound the others
        const Place<T> first = place_of(sample_point(axis, bin, samples.begin), axis.size);
        const Place<T> last = place_of(sample_point(axis, bin, samples.end - 1), axis.size);
        include(first.low, first.low + (first.fraction == T(0) ? 1 : 2));
        include(last.low, last.low + (last.fraction == T(0) ? 1 : 2));
      }
    } else {
      const Range cells = cells_of(axis, bin);
      if (cells.begin < cells.end) {
        include(cells.begin, cells.end);
      }
    }
  }
  return touched.begin < touched.end ? touched : Range{0, 0};
}

constexpr int kBinningWarps = 8;

// One warp per RoI; its lanes divide the groups of tiles that the RoI touches.
template <class T>
__global__ void __launch_bounds__(32 * kBinningWarps)
    binning_kernel(const Pyramid pyramid, const Query<T> query, const Binning binning) {
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kBinningWarps + threadIdx.y; k < query.count;
       k += static_cast<int64_t>(gridDim.x) * kBinningWarps) {
    const Site site = site_of(query, pyramid, k);
    Range rows{0, 0}, columns{0, 0};
    if (site.level >= 0) {
      rows = cells_touched(axis_of(query, pyramid, site.level, k, Side::rows), query.pooled_height);
      columns = cells_touched(axis_of(query, pyramid, site.level, k, Side::columns), query.pooled_width);
    }
    const bool touches = rows.begin < rows.end && columns.begin < columns.end;
    if (threadIdx.x == 0) {
      binning.extents[k] = {touches ? site.level : -1, rows.begin, rows.end, columns.begin, columns.end};
    }
    if (touches) {
      const Tiles& groups = binning.groups;
      const int64_t side = static_cast<int64_t>(kTile) << binning.shift;
      const int64_t top = rows.begin / side, left = columns.begin / side;
      const int64_t down = (rows.end - 1) / side - top + 1, across = (columns.end - 1) / side - left + 1;
      const int64_t first =
          groups.first[site.level] + site.image * groups.rows[site.level] * groups.columns[site.level];
      for (int64_t i = threadIdx.x; i < down * across; i += 32) {
        const int64_t group = first + (top + i / across) * groups.columns[site.level] + left + i % across;
        // An atomic, but the result does not depend on the order.
        atomicOr(binning.touched + group * binning.words + k / 32, 1u << (k % 32));
      }
    }
  }
}

template <class T>
void launch_binning(const Pyramid& pyramid, const Query<T>& query, const Binning& binning, void* stream) {
  clear(binning.touched, binning.groups.total * binning.words * sizeof(uint32_t), stream);
  const int64_t blocks = divide_up(query.count, kBinningWarps);
  launch(binning_kernel<T>, blocks < kMaxBlocks ? blocks : kMaxBlocks, dim3(32, kBinningWarps), 0, stream, pyramid,
         query, binning);
}

// One tile of a map's gradient.
struct Tile {
  int level;
  int64_t image;
  int y, x;  // its first cell
};

__device__ inline Tile tile_of(const Tiles& tiles, int levels, int64_t number) {
  Tile tile{0, 0, 0, 0};
  while (tile.level + 1 < levels && number >= tiles.first[tile.level + 1]) {
    ++tile.level;
  }
  const int64_t here = number - tiles.first[tile.level], columns = tiles.columns[tile.level];
  const int64_t of_image = tiles.rows[tile.level] * columns;
  tile.image = here / of_image;
  tile.y = static_cast<int>(here % of_image / columns) * kTile;
  tile.x = static_cast<int>(here % columns) * kTile;
  return tile;
}

// The words of the bit mask whose RoIs a block lists at a time.
constexpr int kListedWords = 32;
constexpr int kListed = 32 * kListedWords;

inline size_t list_bytes() { return shared_bytes<uint32_t>(kListedWords) + shared_bytes<int64_t>(kListed); }

// Lists the RoIs of up to kListedWords words from `begin` on that touch a tile, by rising index, and returns their
// number. All threads of a block must call it; on return the list is complete for all.
__device__ inline int list_rois(const Binning& binning, const Tile& tile, int64_t begin, uint32_t* kept,
                                int64_t* list) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
  const Tiles& groups = binning.groups;
  const int64_t side = static_cast<int64_t>(kTile) << binning.shift;
  const int64_t group = groups.first[tile.level] +
                        (tile.image * groups.rows[tile.level] + tile.y / side) * groups.columns[tile.level] +
                        tile.x / side;
  const int words = static_cast<int>(min(static_cast<int64_t>(kListedWords), binning.words - begin));
  for (int w = thread; w < words; w += threads) {
    uint32_t found = 0;
    for (uint32_t bits = binning.touched[group * binning.words + begin + w]; bits != 0; bits &= bits - 1) {
      const int bit = __ffs(static_cast<int>(bits)) - 1;
      const Extent extent = binning.extents[(begin + w) * 32 + bit];
      if (extent.y0 < tile.y + kTile && extent.y1 > tile.y && extent.x0 < tile.x + kTile && extent.x1 > tile.x) {
        found |= 1u << bit;
      }
    }
    kept[w] = found;
  }
  __syncthreads();
  int total = 0;
  for (int w = 0; w < words; ++w) {
    if (w % threads == thread) {  // behind the RoIs of the words before
      int at = total;
      for (uint32_t bits = kept[w]; bits != 0; bits &= bits - 1) {
        list[at++] = (begin + w) * 32 + __ffs(static_cast<int>(bits)) - 1;
      }
    }
    total += __popc(kept[w]);
  }
  __syncthreads();
  return total;
}

}  // namespace aligned_rcnn::cuda
