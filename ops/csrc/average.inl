// Averages: weighted sums over cells, and their transposes. Included by kernels.cpp.

// ---- Average, channels last ----

// Writes to `to`, or adds (Accumulate), the sum over `rows` x `cols` of weighted elements. Forward, the elements are
// cells of the map and `to` is a bin; backward, they are bins of the output's gradient and `to` is a cell of the map's.
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
                           Segments<Tap<compute_t<S>>> cols, Tile tile, compute_t<S>* sums, int64_t stride) {
  using T = compute_t<S>;
  const int64_t y0 = larger(tile.y0, rows.low), y1 = smaller(tile.y1, rows.high + 1);
  const int64_t x0 = larger(tile.x0, cols.low), x1 = smaller(tile.x1, cols.high + 1);
  for (int64_t y = y0; y < y1; ++y) {
    const auto row = slice(rows, y - rows.low);
    for (int64_t x = x0; row.begin != row.end && x < x1; ++x) {
      const auto col = slice(cols, x - cols.low);
      if (col.begin != col.end) {
        T* cell = sums + (y - tile.y0) * stride + (x - tile.x0) * shape.channels;
        over_channels<T>(shape.channels,
                         WeightedSum<true, S, T>{grad, pooled_width * shape.channels, shape.channels, row, col, cell});
      }
    }
  }
}

// ---- Average, one channel of NCHW ----

// The columns low .. high, widened within the row to whole vectors if the row is long enough.
struct Span {
  int64_t begin, count;
  int64_t wide;  // how many of `count` are processed in vectors; the rest one by one
};

template <class T>
inline Span span_of(int64_t low, int64_t high, int64_t width) {
  const int64_t count = high - low + 1, padded = (count + lanes<T> - 1) / lanes<T> * lanes<T>;
  if (padded > width) {
    return {low, count, count / lanes<T> * lanes<T>};
  }
  return {low + padded <= width ? low : width - padded, padded, padded};
}

// *scratch = the weighted sum of a bin's rows at column x.
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

// ---- Position-sensitive average ----

template <class S>
void ps_average(const S* map, Strides strides, int64_t channels, Segments<Tap<compute_t<S>>> rows,
                Segments<Tap<compute_t<S>>> cols, int ph, int pw, S* out, int64_t out_stride) {
  using T = compute_t<S>;
  const auto row_taps = slice(rows, ph), col_taps = slice(cols, pw);
  for (int64_t c = 0; c < channels; ++c) {
    T sum = 0;
    for (const Tap<T>* row = row_taps.begin; row != row_taps.end; ++row) {
      for (const Tap<T>* col = col_taps.begin; col != col_taps.end; ++col) {
        const S* cell = map + c * strides.channel + row->index * strides.row + col->index * strides.cell;
        sum = multiply_add(row->weight * col->weight, widen(*cell), sum);
      }
    }
    save(sum, out + c * out_stride);
  }
}

template <class S>
void ps_average_backward(const S* grad, int64_t grad_stride, Strides strides, int64_t channels,
                         Segments<Tap<compute_t<S>>> rows, Segments<Tap<compute_t<S>>> cols, int ph, int pw, Tile tile,
                         compute_t<S>* sums) {
  using T = compute_t<S>;
  const auto row_taps = slice(rows, ph), col_taps = slice(cols, pw);
  for (const Tap<T>* row = row_taps.begin; row != row_taps.end; ++row) {
    if (row->index < tile.y0 || row->index >= tile.y1) {
      continue;
    }
    for (const Tap<T>* col = col_taps.begin; col != col_taps.end; ++col) {
      if (col->index < tile.x0 || col->index >= tile.x1) {
        continue;
      }
      T* cell = sums + (row->index - tile.y0) * strides.row + (col->index - tile.x0) * strides.cell;
      for (int64_t c = 0; c < channels; ++c) {
        T& sum = cell[c * strides.channel];
        sum = multiply_add(row->weight * col->weight, widen(grad[c * grad_stride]), sum);
      }
    }
  }
}
