// The inner loops of the CPU operators, compiled once per instruction set (VARIANT names the one at hand).
// Sums run in a fixed order, whatever the number of threads.

#include "kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace aligned_rcnn {
namespace VARIANT {
namespace {

#include "simd.h"

template <class T>
struct Slice {  // one segment of a table
  const T *begin, *end;
};

template <class E>
inline Slice<E> slice(const Segments<E>& segments, int64_t i) {
  return {segments.entries + segments.begin[i], segments.entries + segments.begin[i + 1]};
}

// Runs `body` over all channels: as many vectors at once as the registers hold sums, then fewer, then elements.
template <class T, class Body>
inline void over_channels(int64_t channels, const Body& body) {
  using V = vector_t<T>;
  int64_t c = 0;
  if constexpr (Body::kBlocked) {
    for (; c + kAccumulators * lanes<T> <= channels; c += kAccumulators * lanes<T>) {
      body.template run<V, kAccumulators>(c);
    }
    for (; c + 4 * lanes<T> <= channels; c += 4 * lanes<T>) {
      body.template run<V, 4>(c);
    }
  }
  for (; c + lanes<T> <= channels; c += lanes<T>) {
    body.template run<V, 1>(c);
  }
  for (; c < channels; ++c) {
    body.template run<T, 1>(c);
  }
}

// ---- Average, channels last ----

// Adds to `to` (or replaces it) the weighted sum of the cells that two short weight vectors span. Forward, the cells
// are the map's and `to` is a bin; backward, they are bins of the gradient and `to` is a cell of the map.
template <bool Accumulate, class S, class D>
struct WeightedSum {
  static constexpr bool kBlocked = true;
  using T = compute_t<S>;
  const S* from;
  int64_t row_stride, cell_stride;
  Slice<Tap<T>> rows, cols;
  D* to;

  template <class V, int Blocks>
  void run(int64_t c) const {
    V sum[Blocks] = {};
    if (Accumulate) {
      for (int i = 0; i < Blocks; ++i) {
        sum[i] = load<V>(to + c + i * Pack<V>::size);
      }
    }
    for (const Tap<T>* row = rows.begin; row != rows.end; ++row) {
      const S* line = from + row->index * row_stride + c;
      for (const Tap<T>* col = cols.begin; col != cols.end; ++col) {
        const S* cell = line + col->index * cell_stride;
        const V weight = splat<V>(row->weight * col->weight);
        for (int i = 0; i < Blocks; ++i) {
          sum[i] += weight * load<V>(cell + i * Pack<V>::size);
        }
      }
    }
    for (int i = 0; i < Blocks; ++i) {
      save(sum[i], to + c + i * Pack<V>::size);
    }
  }
};

template <class S>
void average_nhwc(const S* map, MapShape shape, Segments<Tap<compute_t<S>>> rows, Segments<Tap<compute_t<S>>> cols,
                  S* out) {
  using T = compute_t<S>;
  for (int ph = 0; ph < rows.count; ++ph) {
    for (int pw = 0; pw < cols.count; ++pw, out += shape.channels) {
      over_channels<T>(shape.channels, WeightedSum<false, S, S>{map, shape.width * shape.channels, shape.channels,
                                                                slice(rows, ph), slice(cols, pw), out});
    }
  }
}

template <class S>
void average_backward_nhwc(const S* grad, int64_t pooled_width, MapShape shape, Segments<Tap<compute_t<S>>> rows,
                           Segments<Tap<compute_t<S>>> cols, int64_t y0, int64_t y1, compute_t<S>* tile) {
  using T = compute_t<S>;
  const int64_t first = y0 > rows.low ? y0 : rows.low, last = y1 - 1 < rows.high ? y1 - 1 : rows.high;
  for (int64_t y = first; y <= last; ++y) {
    const auto row = slice(rows, y - rows.low);
    for (int64_t x = cols.low; row.begin != row.end && x <= cols.high; ++x) {
      const auto col = slice(cols, x - cols.low);
      if (col.begin != col.end) {
        T* cell = tile + ((y - y0) * shape.width + x) * shape.channels;
        over_channels<T>(shape.channels, WeightedSum<true, S, T>{grad, pooled_width * shape.channels, shape.channels,
                                                                 row, col, cell});
      }
    }
  }
}

// ---- Average, one channel of NCHW ----

// The columns low .. high, widened inside the row to whole vectors; a row too narrow for that is left to the elements.
struct Span {
  int64_t begin, count;
  int64_t wide;  // how many of `count` are done in vectors
};

template <class T>
inline Span span_of(int64_t low, int64_t high, int64_t width) {
  const int64_t count = high - low + 1, padded = (count + lanes<T> - 1) / lanes<T> * lanes<T>;
  if (padded > width) {
    return {low, count, count / lanes<T> * lanes<T>};
  }
  return {low + padded <= width ? low : width - padded, padded, padded};
}

// scratch[x] = the bin's rows, weighted and summed, at column x.
template <class V, class S, class T>
inline void sum_rows(const S* map, int64_t width, Slice<Tap<T>> rows, int64_t x, T* scratch) {
  V sum = {};
  for (const Tap<T>* row = rows.begin; row != rows.end; ++row) {
    sum += splat<V>(row->weight) * load<V>(map + row->index * width + x);
  }
  save(sum, scratch);
}

template <class S>
void average_nchw(const S* map, MapShape shape, Segments<Tap<compute_t<S>>> rows, Segments<Tap<compute_t<S>>> cols,
                  compute_t<S>* scratch, S* out) {
  using T = compute_t<S>;
  const Span span = span_of<T>(cols.low, cols.high, shape.width);
  for (int ph = 0; ph < rows.count; ++ph) {
    const auto row = slice(rows, ph);
    int64_t x = 0;
    for (; x < span.wide; x += lanes<T>) {
      sum_rows<vector_t<T>>(map, shape.width, row, span.begin + x, scratch + x);
    }
    for (; x < span.count; ++x) {
      sum_rows<T>(map, shape.width, row, span.begin + x, scratch + x);
    }
    for (int pw = 0; pw < cols.count; ++pw) {
      const auto col = slice(cols, pw);
      T sum = 0;
      for (const Tap<T>* tap = col.begin; tap != col.end; ++tap) {
        sum += tap->weight * scratch[tap->index - span.begin];
      }
      save(sum, out++);
    }
  }
}

// line[x] += weight * scratch[x]
template <class V, class T>
inline void add_row(const T* scratch, T weight, T* line) {
  save(load<V>(line) + splat<V>(weight) * load<V>(scratch), line);
}

template <class S>
void average_backward_nchw(const S* grad, int64_t pooled_width, MapShape shape, Segments<Tap<compute_t<S>>> rows,
                           Segments<Tap<compute_t<S>>> cols, compute_t<S>* scratch, compute_t<S>* map) {
  using T = compute_t<S>;
  const Span span = span_of<T>(cols.low, cols.high, shape.width);
  for (int64_t x = 0; x < span.count; ++x) {
    scratch[x] = 0;
  }
  for (int ph = 0; ph < rows.count; ++ph, grad += pooled_width) {
    for (int64_t x = cols.low; x <= cols.high; ++x) {
      const auto col = slice(cols, x - cols.low);
      T sum = 0;
      for (const Tap<T>* tap = col.begin; tap != col.end; ++tap) {
        sum += tap->weight * widen(grad[tap->index]);
      }
      scratch[x - span.begin] = sum;
    }
    const auto row = slice(rows, ph);
    for (const Tap<T>* tap = row.begin; tap != row.end; ++tap) {
      T* line = map + tap->index * shape.width + span.begin;
      int64_t x = 0;
      for (; x < span.wide; x += lanes<T>) {
        add_row<vector_t<T>>(scratch + x, tap->weight, line + x);
      }
      for (; x < span.count; ++x) {
        add_row<T>(scratch + x, tap->weight, line + x);
      }
    }
  }
}

// ---- Maximum ----

// Sampling takes the first sample that attains the maximum and lets NaN through, as torch's own maxima do; where some
// samples are out of reach, the maximum is at least 0. Pooling starts at the lowest float and never takes a NaN, as
// Caffe's and torchvision's do.
template <bool Interpolates, class S>
struct Maximum {
  static constexpr bool kBlocked = false;
  using T = compute_t<S>;
  const S* map;
  MapShape shape;
  Slice<Spot<T>> rows, cols;
  bool zeros;
  S* out;
  int32_t* argmax;

  // The value at a place; cells of weight 0 are not read.
  template <class V>
  V value_at(Spot<T> row, Spot<T> col, int64_t c) const {
    const int64_t row_stride = shape.width * shape.channels;
    const S* cell = map + row.low * row_stride + col.low * shape.channels + c;
    if (!Interpolates) {
      return load<V>(cell);
    }
    V value = splat<V>((T(1) - row.fraction) * (T(1) - col.fraction)) * load<V>(cell);
    if (col.fraction != T(0)) {
      value += splat<V>((T(1) - row.fraction) * col.fraction) * load<V>(cell + shape.channels);
    }
    if (row.fraction != T(0)) {
      value += splat<V>(row.fraction * (T(1) - col.fraction)) * load<V>(cell + row_stride);
      if (col.fraction != T(0)) {
        value += splat<V>(row.fraction * col.fraction) * load<V>(cell + row_stride + shape.channels);
      }
    }
    return value;
  }

  template <class V, int>
  void run(int64_t c) const {
    using I = typename Pack<V>::index;
    using L = typename Pack<V>::lane;
    V best = splat<V>(Interpolates ? -T(__builtin_inf()) : T(-3.40282346638528859812e+38));
    I arg = I{} - 1;
    int64_t number = 0;
    for (const Spot<T>* row = rows.begin; row != rows.end; ++row) {
      for (const Spot<T>* col = cols.begin; col != cols.end; ++col, ++number) {
        const V value = value_at<V>(*row, *col, c);
        const I here = I{} + static_cast<L>(Interpolates ? number : row->low * shape.width + col->low);
        if (Interpolates) {
          const auto better = (value > best) | ((value != value) & (best == best));
          best = better ? value : best;
          arg = better ? here : arg;
        } else {
          const auto better = value > best;
          best = better ? value : best;
          arg = better ? here : arg;
        }
      }
    }
    if (number == 0) {
      best = V{};
    } else if (Interpolates && zeros) {
      const auto below = best < V{};
      best = below ? V{} : best;
      arg = below ? I{} - 1 : arg;
    }
    save(best, out + c);
    save_index(arg, argmax + c);
  }
};

template <bool Interpolates, class S>
void maximum_over_bins(const S* map, MapShape shape, Spots<compute_t<S>> rows, Spots<compute_t<S>> cols, S* out,
                       int32_t* argmax) {
  using T = compute_t<S>;
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    for (int pw = 0; pw < cols.spots.count; ++pw, out += shape.channels, argmax += shape.channels) {
      over_channels<T>(shape.channels,
                       Maximum<Interpolates, S>{map, shape, slice(rows.spots, ph), slice(cols.spots, pw),
                                                rows.zeros[ph] || cols.zeros[pw], out, argmax});
    }
  }
}

template <class S>
void maximum(const S* map, MapShape shape, Spots<compute_t<S>> rows, Spots<compute_t<S>> cols, bool interpolates, S* out,
             int32_t* argmax) {
  if (interpolates) {
    maximum_over_bins<true>(map, shape, rows, cols, out, argmax);
  } else {
    maximum_over_bins<false>(map, shape, rows, cols, out, argmax);
  }
}

// Adds one output's gradient to the cells that a place reads (see Maximum::value_at), in the rows y0 .. y1.
template <class T>
inline void spread(Spot<T> row, Spot<T> col, T value, MapShape shape, int64_t y0, int64_t y1, T* tile) {
  for (int dy = 0; dy <= (row.fraction != T(0)); ++dy) {
    const int64_t y = row.low + dy;
    if (y < y0 || y >= y1) {
      continue;
    }
    const T weight = (dy ? row.fraction : T(1) - row.fraction);
    T* cell = tile + ((y - y0) * shape.width + col.low) * shape.channels;
    *cell += weight * (T(1) - col.fraction) * value;
    if (col.fraction != T(0)) {
      cell[shape.channels] += weight * col.fraction * value;
    }
  }
}

template <class S>
void maximum_backward(const S* grad, const int32_t* argmax, MapShape shape, Spots<compute_t<S>> rows,
                      Spots<compute_t<S>> cols, bool interpolates, int64_t y0, int64_t y1, compute_t<S>* tile) {
  using T = compute_t<S>;
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    const auto row = slice(rows.spots, ph);
    for (int pw = 0; pw < cols.spots.count; ++pw, grad += shape.channels, argmax += shape.channels) {
      const auto col = slice(cols.spots, pw);
      const int32_t nx = static_cast<int32_t>(col.end - col.begin);
      for (int64_t c = 0; c < shape.channels; ++c) {
        const int32_t arg = argmax[c];
        if (arg < 0) {
          continue;
        }
        const T value = widen(grad[c]);
        if (interpolates) {
          spread(row.begin[arg / nx], col.begin[arg % nx], value, shape, y0, y1, tile + c);
        } else {
          const int64_t cell = arg - y0 * shape.width;
          if (cell >= 0 && cell < (y1 - y0) * shape.width) {
            tile[cell * shape.channels + c] += value;
          }
        }
      }
    }
  }
}

template <class S>
void store(const compute_t<S>* from, S* to, int64_t count) {
  using T = compute_t<S>;
  int64_t i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) {
    save(load<vector_t<T>>(from + i), to + i);
  }
  for (; i < count; ++i) {
    save(from[i], to + i);
  }
}

}  // namespace

template <class S>
const Kernels<S>& variant() {
  static constexpr Kernels<S> table{average_nhwc<S>,          average_nchw<S>, average_backward_nhwc<S>,
                                    average_backward_nchw<S>, maximum<S>,      maximum_backward<S>, store<S>};
  return table;
}

template const Kernels<float>& variant<float>();
template const Kernels<double>& variant<double>();
template const Kernels<Half>& variant<Half>();
template const Kernels<BFloat16>& variant<BFloat16>();

}  // namespace VARIANT
}  // namespace aligned_rcnn
