// From boxes to tables on the host: the map of each RoI, and the samples or weighted cells of each of its bins.
//
// Tables are made once per call and shared by all channels. All lists of RoIs are in the order of their indices, so
// that sums are equal for any number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "geometry.h"
#include "kernels.h"

namespace aligned_rcnn {

// An operator's arguments besides the features.
template <class T>
struct Query {
  const T* boxes;  // [count, 5]: image index, x1, y1, x2, y2
  int64_t count;
  const int64_t* levels;  // nullptr: all on level 0
  std::vector<double> scales;
  Rule rule;
  int pooled_height, pooled_width, sampling_ratio;
};

// The shape of one level: images of [channels, height, width].
struct Level {
  int64_t images, channels, height, width;
  MapShape shape() const { return {channels, height, width}; }
};

// Runs `task(worker, i)` for i in [0, tasks) on at most `workers` of torch's threads; each takes the next task when it
// is free.
template <class Task>
void parallel_workers(int64_t workers, int64_t tasks, const Task& task) {
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t i = next++; i < tasks; i = next++) {
        task(worker, i);
      }
    }
  });
}

// Runs `task(i)` for i in [0, tasks) on torch's threads.
template <class Task>
void parallel_tasks(int64_t tasks, const Task& task) {
  const int64_t workers = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  parallel_workers(workers, tasks, [&](int64_t, int64_t i) { task(i); });
}

constexpr int64_t kRoisAChunk = 256;   // RoIs whose table entries one thread fills
constexpr int64_t kChunksAThread = 4;  // fewer do not pay for another thread

// The map of a RoI. `level` is -1 if its level or image does not exist: the RoI reads nothing and gives zeros.
struct Site {
  int32_t level, image;
};

template <class T>
std::vector<Site> find_sites(const Query<T>& query, const std::vector<Level>& levels) {
  std::vector<Site> sites(query.count);
  for (int64_t k = 0; k < query.count; ++k) {
    const int64_t level = query.levels == nullptr ? 0 : query.levels[k];
    const T image = query.boxes[k * 5];
    const bool on_level = level >= 0 && level < static_cast<int64_t>(levels.size());
    const bool exists = on_level && image > T(-1) && image < static_cast<T>(levels[level].images) &&
                        levels[level].height > 0 && levels[level].width > 0;
    sites[k] = exists ? Site{static_cast<int32_t>(level), static_cast<int32_t>(image)} : Site{-1, 0};
  }
  return sites;
}

// RoIs grouped by map: those on map m, which is maps[m], are order[begin[m] .. begin[m + 1]), by rising index.
struct Groups {
  std::vector<int64_t> order, begin;
  std::vector<Site> maps;
};

inline Groups group_by_map(const std::vector<Site>& sites, const std::vector<Level>& levels) {
  Groups groups;
  std::vector<int64_t> first(levels.size());
  for (size_t level = 0; level < levels.size(); ++level) {
    first[level] = static_cast<int64_t>(groups.maps.size());
    for (int64_t image = 0; image < levels[level].images; ++image) {
      groups.maps.push_back({static_cast<int32_t>(level), static_cast<int32_t>(image)});
    }
  }
  groups.begin.assign(groups.maps.size() + 1, 0);
  for (const Site& site : sites) {
    if (site.level >= 0) {
      ++groups.begin[first[site.level] + site.image + 1];
    }
  }
  for (size_t m = 0; m < groups.maps.size(); ++m) {
    groups.begin[m + 1] += groups.begin[m];
  }
  groups.order.resize(groups.begin.back());
  std::vector<int64_t> next(groups.begin.begin(), groups.begin.end() - 1);
  for (size_t k = 0; k < sites.size(); ++k) {
    if (sites[k].level >= 0) {
      groups.order[next[first[sites[k].level] + sites[k].image]++] = static_cast<int64_t>(k);
    }
  }
  return groups;
}

enum class Side { rows, columns };

template <class T>
Axis<T> axis_of(const Query<T>& query, const std::vector<Level>& levels, Site site, int64_t k, Side side) {
  const bool rows = side == Side::rows;
  const T* edges = query.boxes + k * 5 + (rows ? 2 : 1);
  const Level& level = levels[site.level];
  return make_axis<T>(query.rule, edges[0], edges[2], static_cast<T>(query.scales[site.level]),
                      rows ? query.pooled_height : query.pooled_width, query.sampling_ratio,
                      static_cast<int>(rows ? level.height : level.width));
}

// One axis of all RoIs. The n segments of RoI k have n + 1 offsets, begin[first[k] .. first[k + 1]), into the entries
// of its chunk; a chunk holds the entries of kRoisAChunk RoIs, filled by one thread.
template <class E>
struct Table {
  std::vector<int64_t> first;      // K + 1
  std::vector<int64_t> begin;      // offsets into the chunk's entries
  std::vector<int32_t> low, high;  // per RoI: the smallest and largest cell it reads
  std::vector<std::vector<E>> chunks;
  int64_t longest = 0;  // the most entries of a RoI

  int64_t count() const { return static_cast<int64_t>(low.size()); }
  Segments<E> of(int64_t k) const {
    return {begin.data() + first[k], chunks[k / kRoisAChunk].data(), static_cast<int32_t>(first[k + 1] - first[k] - 1),
            low[k], high[k]};
  }
};

template <class E>
Table<E> empty_table(int64_t count, int64_t segments) {
  Table<E> table;
  table.first.resize(count + 1);
  for (int64_t k = 0; k <= count; ++k) {
    table.first[k] = k * (segments + 1);
  }
  table.begin.assign(count * (segments + 1), 0);
  table.low.assign(count, 0);
  table.high.assign(count, -1);
  table.chunks.resize((count + kRoisAChunk - 1) / kRoisAChunk);
  return table;
}

// Runs visit(k, chunk) for all RoIs; chunks run in parallel.
template <class Visit>
void for_each_in_chunks(int64_t count, const Visit& visit) {
  const int64_t chunks = (count + kRoisAChunk - 1) / kRoisAChunk;
  torch::stable::parallel_for(0, chunks, kChunksAThread, [&](int64_t from, int64_t to) {
    for (int64_t k = from * kRoisAChunk; k < std::min(to * kRoisAChunk, count); ++k) {
      visit(k, k / kRoisAChunk);
    }
  });
}

// The cells that an entry reads: a tap one, a spot between cells two.
template <class T>
int32_t last_cell(const Tap<T>& tap) {
  return tap.index;
}
template <class T>
int32_t last_cell(const Spot<T>& spot) {
  return spot.fraction == T(0) ? spot.low : spot.low + 1;
}
template <class T>
int32_t first_cell(const Tap<T>& tap) {
  return tap.index;
}
template <class T>
int32_t first_cell(const Spot<T>& spot) {
  return spot.low;
}

// Fills a table; visit(k, segment, emit) calls emit(entry) for each entry of a segment.
template <class E, class Visit>
void fill(Table<E>& table, const Visit& visit) {
  for_each_in_chunks(table.count(), [&](int64_t k, int64_t chunk) {
    std::vector<E>& entries = table.chunks[chunk];
    const int64_t segments = table.first[k + 1] - table.first[k] - 1;
    int32_t low = INT32_MAX, high = -1;
    for (int64_t s = 0; s < segments; ++s) {
      table.begin[table.first[k] + s] = static_cast<int64_t>(entries.size());
      visit(k, s, [&](const E& entry) {
        low = std::min(low, first_cell(entry));
        high = std::max(high, last_cell(entry));
        entries.push_back(entry);
      });
    }
    table.begin[table.first[k] + segments] = static_cast<int64_t>(entries.size());
    if (high >= 0) {
      table.low[k] = low;
      table.high[k] = high;
    }
  });
  for (int64_t k = 0; k < table.count(); ++k) {
    table.longest = std::max(table.longest, table.begin[table.first[k + 1] - 1] - table.begin[table.first[k]]);
  }
}

// For averages: the weighted cells of each bin.
template <class T>
Table<Tap<T>> make_taps(const Query<T>& query, const std::vector<Level>& levels, const std::vector<Site>& sites,
                        Side side) {
  auto table = empty_table<Tap<T>>(query.count, side == Side::rows ? query.pooled_height : query.pooled_width);
  fill(table, [&](int64_t k, int64_t bin, auto&& emit) {
    if (sites[k].level >= 0) {
      const Axis<T> axis = axis_of(query, levels, sites[k], k, side);
      for_each_tap(axis, static_cast<int>(bin), [&](int cell, T weight) { emit(Tap<T>{cell, weight}); });
    }
  });
  return table;
}

// Transposes a table: for each cell from `low` to `high`, the bins that read it and their weights, bins rising.
template <class T>
Table<Tap<T>> transpose(const Table<Tap<T>>& taps) {
  Table<Tap<T>> table;
  table.low = taps.low;
  table.high = taps.high;
  table.longest = taps.longest;
  table.first.assign(taps.count() + 1, 0);
  for (int64_t k = 0; k < taps.count(); ++k) {
    table.first[k + 1] = table.first[k] + (taps.high[k] - taps.low[k] + 1) + 1;
  }
  table.begin.assign(table.first.back(), 0);
  table.chunks.resize(taps.chunks.size());
  for (size_t chunk = 0; chunk < taps.chunks.size(); ++chunk) {
    table.chunks[chunk].resize(taps.chunks[chunk].size());
  }
  for_each_in_chunks(taps.count(), [&](int64_t k, int64_t chunk) {
    const Segments<Tap<T>> bins = taps.of(k);
    const int64_t cells = bins.high - bins.low + 1;
    int64_t* begin = table.begin.data() + table.first[k];
    for (int64_t i = bins.begin[0]; i < bins.begin[bins.count]; ++i) {
      ++begin[bins.entries[i].index - bins.low];  // count the entries of each cell
    }
    int64_t end = bins.begin[0];
    for (int64_t cell = 0; cell < cells; ++cell) {
      end += begin[cell];
      begin[cell] = end;  // the end of its segment
    }
    begin[cells] = end;
    for (int32_t bin = bins.count - 1; bin >= 0; --bin) {
      for (int64_t i = bins.begin[bin + 1] - 1; i >= bins.begin[bin]; --i) {
        const Tap<T>& tap = bins.entries[i];
        table.chunks[chunk][--begin[tap.index - bins.low]] = {bin, tap.weight};  // filled from the end to the beginning
      }
    }
  });
  return table;
}

// For maxima: the samples or cells of each bin, and whether some samples count as zeros.
template <class T>
struct SpotTable {
  Table<Spot<T>> table;
  std::vector<uint8_t> zeros;
  Spots<T> of(int64_t k) const { return {table.of(k), zeros.data() + table.first[k]}; }
};

template <class T>
SpotTable<T> make_spots(const Query<T>& query, const std::vector<Level>& levels, const std::vector<Site>& sites,
                        Side side) {
  SpotTable<T> result;
  result.table = empty_table<Spot<T>>(query.count, side == Side::rows ? query.pooled_height : query.pooled_width);
  result.zeros.assign(result.table.begin.size(), 0);
  fill(result.table, [&](int64_t k, int64_t bin, auto&& emit) {
    if (sites[k].level >= 0) {
      const Axis<T> axis = axis_of(query, levels, sites[k], k, side);
      const Candidates candidates = for_each_place(
          axis, static_cast<int>(bin), [&](int, Place<T> place) { emit(Spot<T>{place.low, place.fraction}); });
      result.zeros[result.table.first[k] + bin] = candidates.zeros;
    }
  });
  return result;
}

}  // namespace aligned_rcnn
