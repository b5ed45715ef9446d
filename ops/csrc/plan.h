// From boxes to tables on the host: which RoI lies on which map, and what each of its bins looks at.
//
// Tables are made once per call and shared by all channels. Everything here is in the order of the RoIs' indices, so
// that sums come out the same for any number of threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "geometry.h"
#include "kernels.h"

namespace aligned_rcnn {

// What every operator is given besides features: K boxes (image index, x1, y1, x2, y2) and where to look.
template <class T>
struct Query {
  const T* boxes;
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

// Runs `task(i)` for i in [0, tasks) on torch's threads, each thread taking the next task when it is free.
template <class Task>
void parallel_tasks(int64_t tasks, const Task& task) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t i = next++; i < tasks; i = next++) {
        task(i);
      }
    }
  });
}

constexpr int64_t kRoiGrain = 64;  // RoIs a thread takes at least when making tables

// Where a RoI lies: `level` is -1 when its level or its image does not exist; such a RoI reads nothing and gives zeros.
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

// The RoIs of each map, by index: of map m = (level, image) they are order[begin[m] .. begin[m + 1]).
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

// One axis of all RoIs: RoI k owns the segments first[k] .. first[k + 1] (less one: n segments have n + 1 beginnings).
template <class E>
struct Table {
  std::vector<int64_t> begin;
  std::vector<E> entries;
  std::vector<int64_t> first;      // K + 1
  std::vector<int32_t> low, high;  // per RoI: the cells it touches

  Segments<E> of(int64_t k) const {
    return {begin.data() + first[k], entries.data(), static_cast<int32_t>(first[k + 1] - first[k] - 1), low[k], high[k]};
  }
};

// Fills a table in two passes, RoIs in parallel: `visit(k, segment, emit)` calls emit(entry) for each of its entries.
template <class E, class Visit>
void fill(Table<E>& table, int64_t count, const Visit& visit) {
  torch::stable::parallel_for(0, count, kRoiGrain, [&](int64_t from, int64_t to) {
    for (int64_t k = from; k < to; ++k) {
      for (int64_t s = table.first[k]; s + 1 < table.first[k + 1]; ++s) {
        int64_t entries = 0;
        visit(k, s - table.first[k], [&](const E&) { ++entries; });
        table.begin[s] = entries;
      }
    }
  });
  int64_t total = 0;
  for (int64_t& begin : table.begin) {  // counts become beginnings; the last of a RoI, 0 until now, its end
    const int64_t entries = begin;
    begin = total;
    total += entries;
  }
  table.entries.resize(total);
  torch::stable::parallel_for(0, count, kRoiGrain, [&](int64_t from, int64_t to) {
    for (int64_t k = from; k < to; ++k) {
      for (int64_t s = table.first[k]; s + 1 < table.first[k + 1]; ++s) {
        E* next = table.entries.data() + table.begin[s];
        visit(k, s - table.first[k], [&](const E& entry) { *next++ = entry; });
      }
    }
  });
}

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
  return table;
}

// The cells that entries reach: taps one, spots the next one too when they lie between.
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

template <class E>
void find_extent(Table<E>& table) {
  for (size_t k = 0; k + 1 < table.first.size(); ++k) {
    const int64_t begin = table.begin[table.first[k]], end = table.begin[table.first[k + 1] - 1];
    for (int64_t i = begin; i < end; ++i) {
      const E& entry = table.entries[i];
      table.low[k] = i == begin ? first_cell(entry) : std::min(table.low[k], first_cell(entry));
      table.high[k] = std::max(table.high[k], last_cell(entry));
    }
  }
}

// Averages: per bin, its weight vector.
template <class T>
Table<Tap<T>> make_taps(const Query<T>& query, const std::vector<Level>& levels, const std::vector<Site>& sites, Side side) {
  auto table = empty_table<Tap<T>>(query.count, side == Side::rows ? query.pooled_height : query.pooled_width);
  fill(table, query.count, [&](int64_t k, int64_t bin, auto&& emit) {
    if (sites[k].level >= 0) {
      const Axis<T> axis = axis_of(query, levels, sites[k], k, side);
      for_each_tap(axis, static_cast<int>(bin), [&](int cell, T weight) { emit(Tap<T>{cell, weight}); });
    }
  });
  find_extent(table);
  return table;
}

// The same, by cell: per cell from `low` to `high`, the bins that look at it and their weights.
template <class T>
Table<Tap<T>> transpose(const Table<Tap<T>>& taps) {
  const int64_t count = static_cast<int64_t>(taps.first.size()) - 1;
  Table<Tap<T>> table;
  table.low = taps.low;
  table.high = taps.high;
  table.first.resize(count + 1);
  for (int64_t k = 0; k < count; ++k) {
    table.first[k + 1] = table.first[k] + (taps.high[k] - taps.low[k] + 1) + 1;
  }
  table.begin.assign(table.first[count], 0);
  table.entries.resize(taps.entries.size());
  torch::stable::parallel_for(0, count, kRoiGrain, [&](int64_t from, int64_t to) {
    for (int64_t k = from; k < to; ++k) {
      const Segments<Tap<T>> bins = taps.of(k);
      int64_t* begin = table.begin.data() + table.first[k];
      const int64_t cells = taps.high[k] - taps.low[k] + 1;
      for (int64_t i = bins.begin[0]; i < bins.begin[bins.count]; ++i) {
        ++begin[bins.entries[i].index - bins.low + 1];
      }
      begin[0] = bins.begin[0];
      for (int64_t cell = 0; cell < cells; ++cell) {
        begin[cell + 1] += begin[cell];
      }
      for (int32_t bin = bins.count - 1; bin >= 0; --bin) {  // from the end, so that `begin` is whole afterwards
        for (int64_t i = bins.begin[bin + 1] - 1; i >= bins.begin[bin]; --i) {
          const Tap<T>& tap = bins.entries[i];
          table.entries[--begin[tap.index - bins.low + 1]] = {bin, tap.weight};
        }
      }
      for (int64_t cell = 0; cell < cells; ++cell) {  // each beginning now stands one place too far right
        begin[cell] = begin[cell + 1];
      }
      begin[cells] = bins.begin[bins.count];
    }
  });
  return table;
}

// Maxima: per bin, the places it looks at, and whether zeros stand in for some.
template <class T>
struct SpotTable {
  Table<Spot<T>> table;
  std::vector<uint8_t> zeros;
  Spots<T> of(int64_t k) const { return {table.of(k), zeros.data() + table.first[k]}; }
};

template <class T>
SpotTable<T> make_spots(const Query<T>& query, const std::vector<Level>& levels, const std::vector<Site>& sites, Side side) {
  SpotTable<T> result;
  result.table = empty_table<Spot<T>>(query.count, side == Side::rows ? query.pooled_height : query.pooled_width);
  result.zeros.assign(result.table.begin.size(), 0);
  fill(result.table, query.count, [&](int64_t k, int64_t bin, auto&& emit) {
    if (sites[k].level >= 0) {
      const Axis<T> axis = axis_of(query, levels, sites[k], k, side);
      const Candidates candidates = for_each_place(
          axis, static_cast<int>(bin), [&](int, Place<T> place) { emit(Spot<T>{place.low, place.fraction}); });
      result.zeros[result.table.first[k] + bin] = candidates.zeros;
    }
  });
  find_extent(result.table);
  return result;
}

}  // namespace aligned_rcnn
