// The loops around the kernels, shared by the CPU operators: forward over RoIs or planes, backward over tiles.
//
// Each output, and each cell of a gradient, is written by one thread only, which visits the RoIs in the order of their
// indices: results are bitwise equal for any number of threads.
#pragma once

#include <tuple>

#include "arguments.h"

namespace aligned_rcnn {

constexpr int64_t kTileBytes = 512 << 10;   // size of a tile of the gradient: fits a core's own cache
constexpr int64_t kPlaneBytes = 512 << 10;  // size of the planes that a thread processes together in NCHW

template <class S>
const S* map_of(const Features& features, Site site) {
  const Level& level = features.levels[site.level];
  return data_of<S>(features.tensors[site.level]) + site.image * level.channels * level.height * level.width;
}

// Fills the outputs of RoIs whose image or level does not exist.
template <class E>
void fill_outputs_without_map(const std::vector<Site>& sites, int64_t roi_size, E value, E* out) {
  for (size_t k = 0; k < sites.size(); ++k) {
    if (sites[k].level < 0) {
      std::fill_n(out + k * roi_size, roi_size, value);
    }
  }
}

// Runs visit(k) for all RoIs that have a map, ordered by map, then by bands of rows: RoIs visited one after the other
// read neighbouring memory.
template <class E, class Visit>
void for_each_roi(const Groups& groups, const Table<E>& rows, const Table<E>& cols, const Visit& visit) {
  constexpr int64_t kBand = 32;  // cells
  std::vector<int64_t> order = groups.order;
  const auto place = [&](int64_t k) {
    return std::make_tuple((rows.low[k] + rows.high[k]) / (2 * kBand), cols.low[k] + cols.high[k], k);
  };
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    std::sort(order.begin() + groups.begin[m], order.begin() + groups.begin[m + 1],
              [&](int64_t a, int64_t b) { return place(a) < place(b); });
  }
  parallel_tasks(static_cast<int64_t>(order.size()), [&](int64_t i) { visit(order[i]); });
}

// The length of a Scratch buffer: for the widest map, and for the most samples of a RoI along an axis.
template <class E>
int64_t scratch_size_of(const std::vector<Level>& levels, const Table<E>& cols) {
  int64_t size = cols.longest;
  for (const Level& level : levels) {
    size = std::max(size, level.width);
  }
  return size + kVectorSlack;
}

template <class T>
struct Workspace {
  std::vector<T> row, values, best;
  std::vector<int32_t> arg;
  explicit Workspace(int64_t size) : row(size), values(size), best(size), arg(size) {}
  Scratch<T> scratch() { return {row.data(), values.data(), best.data(), arg.data()}; }
};

// NCHW: runs visit(k, channel, scratch) for all RoIs and channels, a few planes of one map at a time, so that memory is
// read once for all RoIs on them. Where the RoIs' area adds up to the map's, the planes are prefetched as a whole.
template <class S, class E, class Visit>
void for_each_plane(const Features& features, const Groups& groups, const Table<E>& rows, const Table<E>& cols,
                    const Visit& visit) {
  struct Task {
    int64_t map, begin, end;
    bool fetch;
  };
  const std::vector<Level>& levels = features.levels;
  const int64_t scratch_size = scratch_size_of(levels, cols);
  std::vector<Task> tasks;
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    if (groups.begin[m] < groups.begin[m + 1]) {
      const Level& level = levels[groups.maps[m].level];
      const int64_t plane = level.height * level.width * static_cast<int64_t>(sizeof(S));
      const int64_t block = std::clamp<int64_t>(kPlaneBytes / plane, 1, 16);
      int64_t covered = 0;
      for (int64_t i = groups.begin[m]; i < groups.begin[m + 1]; ++i) {
        const int64_t k = groups.order[i];
        covered += static_cast<int64_t>(rows.high[k] - rows.low[k] + 1) * (cols.high[k] - cols.low[k] + 1);
      }
      const bool fetch = covered >= level.height * level.width;
      for (int64_t c = 0; c < level.channels; c += block) {
        tasks.push_back({static_cast<int64_t>(m), c, std::min(c + block, level.channels), fetch});
      }
    }
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t t) {
    const Task& task = tasks[t];
    Workspace<compute_t<S>> workspace(scratch_size);
    if (task.fetch) {
      const Site site = groups.maps[task.map];
      const int64_t size = levels[site.level].height * levels[site.level].width;
      const S* map = map_of<S>(features, site);
      for (const S* line = map + task.begin * size; line < map + task.end * size; line += 64 / sizeof(S)) {
        __builtin_prefetch(line, 0, 2);
      }
    }
    for (int64_t i = groups.begin[task.map]; i < groups.begin[task.map + 1]; ++i) {
      for (int64_t c = task.begin; c < task.end; ++c) {
        visit(groups.order[i], c, workspace.scratch());
      }
    }
  });
}

// Computes the gradients of all levels tile by tile: a rectangle of cells with all channels (channels last), or a plane
// of one channel (NCHW). add(k, channel, tile, sums, stride) adds the contribution of RoI k to a tile that it touches.
template <class S, class E, class Add>
std::vector<Tensor> gradients(const std::vector<Level>& levels, ScalarType type, bool channels_last,
                              const Groups& groups, const Table<E>& rows, const Table<E>& cols, const Add& add) {
  using T = compute_t<S>;
  std::vector<Tensor> results;
  for (const Level& level : levels) {
    results.push_back(empty({level.images, level.channels, level.height, level.width}, type, channels_last));
  }
  struct Task {
    int64_t map, channel;
    Tile tile;
  };
  std::vector<Task> tasks;
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    const Level& level = levels[groups.maps[m].level];
    const int64_t map = static_cast<int64_t>(m);
    if (channels_last) {
      const int64_t pixels = kTileBytes / (std::max<int64_t>(level.channels, 1) * static_cast<int64_t>(sizeof(T)));
      int64_t side = 1;
      while (4 * side * side <= pixels) {
        side *= 2;
      }
      for (int64_t y = 0; y < level.height; y += side) {
        for (int64_t x = 0; x < level.width; x += side) {
          tasks.push_back({map, 0, {y, std::min(y + side, level.height), x, std::min(x + side, level.width)}});
        }
      }
    } else {
      for (int64_t c = 0; c < level.channels; ++c) {
        tasks.push_back({map, c, {0, level.height, 0, level.width}});
      }
    }
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), [&](int64_t t) {
    const Task& task = tasks[t];
    const Tile& tile = task.tile;
    const Site site = groups.maps[task.map];
    const Level& level = levels[site.level];
    const int64_t wide = channels_last ? level.channels : 1;
    const int64_t line = (tile.x1 - tile.x0) * wide, stride = level.width * wide;
    S* gradient = mutable_data_of<S>(results[site.level]) + site.image * level.channels * level.height * level.width +
                  tile.y0 * stride + tile.x0 * wide + task.channel * level.height * level.width;
    // 16-bit gradients are summed in float and rounded once.
    constexpr bool kDirect = std::is_same_v<S, T>;
    std::vector<T> sums(kDirect ? 0 : (tile.y1 - tile.y0) * line);
    T* into = nullptr;
    if constexpr (kDirect) {
      into = gradient;
      for (int64_t y = tile.y0; y < tile.y1; ++y) {
        std::fill_n(gradient + (y - tile.y0) * stride, line, T(0));
      }
    } else {
      into = sums.data();
    }
    for (int64_t i = groups.begin[task.map]; i < groups.begin[task.map + 1]; ++i) {
      const int64_t k = groups.order[i];
      if (rows.low[k] < tile.y1 && rows.high[k] >= tile.y0 && cols.low[k] < tile.x1 && cols.high[k] >= tile.x0) {
        add(k, task.channel, tile, into, kDirect ? stride : line);
      }
    }
    if constexpr (!kDirect) {
      for (int64_t y = tile.y0; y < tile.y1; ++y) {
        kernels<S>().store(sums.data() + (y - tile.y0) * line, gradient + (y - tile.y0) * stride, line);
      }
    }
  });
  return results;
}

}  // namespace aligned_rcnn
