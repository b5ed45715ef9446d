// Maxima: RoIPool, and the maximum over RoIAlign's samples. Included by kernels.cpp.

// ---- Channels last ----

template <class T>
constexpr T kLowest = T(-3.40282346638528859812e+38);

// Of samples, the first that attains the maximum counts, NaN propagates as in torch's max, and the maximum is at least
// 0 where some samples are out of reach. Of cells (RoIPool), the search starts at the lowest float, so that NaN is
// never taken, as in Caffe and torchvision.
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

  // The interpolated value of a sample; cells of weight 0 are not read: they may lie off the map or hold NaN.
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
    V best = splat<V>(Interpolates ? -T(__builtin_inf()) : kLowest<T>);
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
void maximum_nhwc(const S* map, MapShape shape, Spots<compute_t<S>> rows, Spots<compute_t<S>> cols, bool interpolates,
                  S* out, int32_t* argmax) {
  if (interpolates) {
    maximum_over_bins<true>(map, shape, rows, cols, out, argmax);
  } else {
    maximum_over_bins<false>(map, shape, rows, cols, out, argmax);
  }
}

// ---- One channel of NCHW ----

// For each column, the maximum over the bin's rows and the first row that attains it.
template <class V, class S, class T>
inline void column_maxima(const S* map, int64_t width, Slice<Spot<T>> rows, int64_t x, T* best, int32_t* arg) {
  using I = typename Pack<V>::index;
  using L = typename Pack<V>::lane;
  V most = splat<V>(kLowest<T>);
  I where = I{} - 1;
  for (const Spot<T>* row = rows.begin; row != rows.end; ++row) {
    const V value = load<V>(map + row->low * width + x);
    const auto better = value > most;
    most = better ? value : most;
    where = better ? I{} + static_cast<L>(row->low) : where;
  }
  save(most, best);
  save_index(where, arg);
}

template <class S, class T>
void pool_nchw(const S* map, MapShape shape, Spots<T> rows, Spots<T> cols, Scratch<T> scratch, S* out,
               int32_t* argmax) {
  const Span span = span_of<T>(cols.spots.low, cols.spots.high, shape.width);
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    const auto row = slice(rows.spots, ph);
    int64_t i = 0;
    for (; i < span.wide; i += lanes<T>) {
      column_maxima<vector_t<T>>(map, shape.width, row, span.begin + i, scratch.best + i, scratch.arg + i);
    }
    for (; i < span.count; ++i) {
      column_maxima<T>(map, shape.width, row, span.begin + i, scratch.best + i, scratch.arg + i);
    }
    for (int pw = 0; pw < cols.spots.count; ++pw) {
      const auto col = slice(cols.spots, pw);
      T best = kLowest<T>;
      int32_t y = -1, x = 0;
      for (const Spot<T>* spot = col.begin; spot != col.end; ++spot) {
        const T value = scratch.best[spot->low - span.begin];
        const int32_t row_of = scratch.arg[spot->low - span.begin];
        const bool better = (value > best) | ((value == best) & (row_of < y));  // of equals, that in the first row
        best = better ? value : best;
        y = better ? row_of : y;
        x = better ? spot->low : x;
      }
      const bool empty = row.begin == row.end || col.begin == col.end;
      save(empty ? T(0) : best, out++);
      *argmax++ = y < 0 ? -1 : static_cast<int32_t>(y * shape.width + x);
    }
  }
}

// *scratch = the map at column x, interpolated between two rows.
template <class V, class S, class T>
inline void blend_rows(const S* map, int64_t width, Spot<T> row, int64_t x, T* scratch) {
  V value = load<V>(map + row.low * width + x);
  if (row.fraction != T(0)) {
    value = splat<V>(T(1) - row.fraction) * value + splat<V>(row.fraction) * load<V>(map + (row.low + 1) * width + x);
  }
  save(value, scratch);
}

// Updates, for each column of samples, the maximum over the bin's rows of samples and the first row that attains it,
// with the values of row `number`. NaN counts as larger than any number.
template <class V, class T>
inline void keep_larger(int64_t number, int64_t column, Scratch<T> scratch, const T* values) {
  using I = typename Pack<V>::index;
  using L = typename Pack<V>::lane;
  const V value = load<V>(values + column), best = load<V>(scratch.best + column);
  const I arg = load_index<V>(scratch.arg + column);
  const auto better = (value > best) | ((value != value) & (best == best));
  save(better ? value : best, scratch.best + column);
  save_index(better ? I{} + static_cast<L>(number) : arg, scratch.arg + column);
}

template <class S, class T>
void sample_maximum_nchw(const S* map, MapShape shape, Spots<T> rows, Spots<T> cols, Scratch<T> scratch, S* out,
                         int32_t* argmax) {
  const Span span = span_of<T>(cols.spots.low, cols.spots.high, shape.width);
  const int64_t first = cols.spots.begin[0], columns = cols.spots.begin[cols.spots.count] - first;
  const int64_t padded = (columns + lanes<T> - 1) / lanes<T> * lanes<T>;
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    const auto row = slice(rows.spots, ph);
    for (int64_t j = 0; j < padded; ++j) {
      scratch.best[j] = -T(__builtin_inf());
      scratch.arg[j] = -1;
      scratch.values[j] = 0;
    }
    for (const Spot<T>* spot = row.begin; spot != row.end; ++spot) {
      int64_t i = 0;
      for (; i < span.wide; i += lanes<T>) {
        blend_rows<vector_t<T>>(map, shape.width, *spot, span.begin + i, scratch.row + i);
      }
      for (; i < span.count; ++i) {
        blend_rows<T>(map, shape.width, *spot, span.begin + i, scratch.row + i);
      }
      for (int64_t j = 0; j < columns; ++j) {
        const Spot<T> place = cols.spots.entries[first + j];
        const T* cell = scratch.row + (place.low - span.begin);
        const T between = (T(1) - place.fraction) * cell[0] + place.fraction * cell[1];
        scratch.values[j] = place.fraction == T(0) ? cell[0] : between;
      }
      for (int64_t j = 0; j < padded; j += lanes<T>) {
        keep_larger<vector_t<T>>(spot - row.begin, j, scratch, scratch.values);
      }
    }
    for (int pw = 0; pw < cols.spots.count; ++pw) {
      const int64_t begin = cols.spots.begin[pw] - first, nx = cols.spots.begin[pw + 1] - first - begin;
      T best = -T(__builtin_inf());
      int32_t iy = -1, ix = 0;
      for (int64_t j = 0; j < nx; ++j) {
        const T value = scratch.best[begin + j];
        const int32_t row_of = scratch.arg[begin + j];
        const bool better = (value > best) | ((value == best) & (row_of < iy)) | ((value != value) & (best == best));
        best = better ? value : best;
        iy = better ? row_of : iy;
        ix = better ? static_cast<int32_t>(j) : ix;
      }
      const bool empty = row.begin == row.end || nx == 0;
      const bool zero = empty || ((rows.zeros[ph] || cols.zeros[pw]) && best < T(0));
      save(zero ? T(0) : best, out++);
      *argmax++ = zero || iy < 0 ? -1 : static_cast<int32_t>(iy * nx + ix);
    }
  }
}

template <class S>
void maximum_nchw(const S* map, MapShape shape, Spots<compute_t<S>> rows, Spots<compute_t<S>> cols, bool interpolates,
                  Scratch<compute_t<S>> scratch, S* out, int32_t* argmax) {
  if (interpolates) {
    sample_maximum_nchw(map, shape, rows, cols, scratch, out, argmax);
  } else {
    pool_nchw(map, shape, rows, cols, scratch, out, argmax);
  }
}

// ---- Backward ----

// The up to four cells of a tile that a sample reads, and their weights.
template <class T>
struct Corners {
  T* cell[4];
  T weight[4];
  int count;
};

template <class T>
inline Corners<T> corners_in(Tile tile, Spot<T> row, Spot<T> col, int64_t channels, T* sums, int64_t stride) {
  Corners<T> corners;
  corners.count = 0;
  for (int dy = 0; dy <= (row.fraction != T(0)); ++dy) {
    for (int dx = 0; dx <= (col.fraction != T(0)); ++dx) {
      const int64_t y = row.low + dy, x = col.low + dx;
      if (y >= tile.y0 && y < tile.y1 && x >= tile.x0 && x < tile.x1) {
        corners.cell[corners.count] = sums + (y - tile.y0) * stride + (x - tile.x0) * channels;
        corners.weight[corners.count++] =
            (dy ? row.fraction : T(1) - row.fraction) * (dx ? col.fraction : T(1) - col.fraction);
      }
    }
  }
  return corners;
}

// Backward of a bin with few samples, vectorised over channels: each sample in turn gets the gradients of the channels
// whose maximum it is. Processes the channels that fill whole vectors and returns their number.
template <class S, class T>
inline int64_t spread_by_place(const S* grad, const int32_t* argmax, MapShape shape, Slice<Spot<T>> rows,
                               Slice<Spot<T>> cols, bool interpolates, Tile tile, T* sums, int64_t stride) {
  using V = vector_t<T>;
  using I = typename Pack<V>::index;
  using L = typename Pack<V>::lane;
  const int64_t done = shape.channels / lanes<T> * lanes<T>;
  int64_t number = 0;
  for (const Spot<T>* row = rows.begin; row != rows.end; ++row) {
    for (const Spot<T>* col = cols.begin; col != cols.end; ++col, ++number) {
      const Corners<T> corners = corners_in(tile, *row, *col, shape.channels, sums, stride);
      const I mine = I{} + static_cast<L>(interpolates ? number : row->low * shape.width + col->low);
      for (int64_t c = 0; corners.count > 0 && c < done; c += lanes<T>) {
        const V value = load_index<V>(argmax + c) == mine ? load<V>(grad + c) : V{};
        for (int i = 0; i < corners.count; ++i) {
          T* cell = corners.cell[i] + c;
          save(load<V>(cell) + splat<V>(corners.weight[i]) * value, cell);
        }
      }
    }
  }
  return done;
}

constexpr int64_t kFewPlaces = 24;

// Whether a bin's samples (monotone, rising or falling) touch the cells [begin, end).
template <class T>
inline bool meets(Slice<Spot<T>> spots, int64_t begin, int64_t end) {
  const int32_t first = spots.begin[0].low, last = spots.end[-1].low;
  return smaller(first, last) < end && larger(first, last) + 1 >= begin;
}

template <class S>
void maximum_backward_nhwc(const S* grad, const int32_t* argmax, MapShape shape, Spots<compute_t<S>> rows,
                           Spots<compute_t<S>> cols, bool interpolates, Tile tile, compute_t<S>* sums, int64_t stride) {
  using T = compute_t<S>;
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    const auto row = slice(rows.spots, ph);
    for (int pw = 0; pw < cols.spots.count; ++pw, grad += shape.channels, argmax += shape.channels) {
      const auto col = slice(cols.spots, pw);
      const int64_t ny = row.end - row.begin, nx = col.end - col.begin;
      if (ny * nx == 0 || !meets(row, tile.y0, tile.y1) || !meets(col, tile.x0, tile.x1)) {
        continue;
      }
      int64_t c = 0;
      if (ny * nx <= kFewPlaces) {
        c = spread_by_place(grad, argmax, shape, row, col, interpolates, tile, sums, stride);
      }
      const int32_t divisor = static_cast<int32_t>(interpolates ? nx : shape.width);
      for (; c < shape.channels; ++c) {
        if (argmax[c] >= 0) {
          const int32_t first = argmax[c] / divisor, second = argmax[c] % divisor;
          const Spot<T> y = interpolates ? row.begin[first] : Spot<T>{first, T(0)};
          const Spot<T> x = interpolates ? col.begin[second] : Spot<T>{second, T(0)};
          const Corners<T> corners = corners_in(tile, y, x, shape.channels, sums, stride);
          for (int i = 0; i < corners.count; ++i) {
            corners.cell[i][c] += corners.weight[i] * widen(grad[c]);
          }
        }
      }
    }
  }
}

template <class S>
void maximum_backward_nchw(const S* grad, const int32_t* argmax, MapShape shape, Spots<compute_t<S>> rows,
                           Spots<compute_t<S>> cols, bool interpolates, compute_t<S>* map) {
  using T = compute_t<S>;
  for (int ph = 0; ph < rows.spots.count; ++ph) {
    for (int pw = 0; pw < cols.spots.count; ++pw, ++grad, ++argmax) {
      if (*argmax < 0) {
        continue;
      }
      const T value = widen(*grad);
      if (!interpolates) {
        map[*argmax] += value;
        continue;
      }
      const auto row = slice(rows.spots, ph), col = slice(cols.spots, pw);
      const uint32_t arg = static_cast<uint32_t>(*argmax), nx = static_cast<uint32_t>(col.end - col.begin);
      const Spot<T> y = row.begin[arg / nx], x = col.begin[arg % nx];
      T* cell = map + y.low * shape.width + x.low;
      const T above = (T(1) - y.fraction) * value, below = y.fraction * value;
      cell[0] += (T(1) - x.fraction) * above;
      if (x.fraction != T(0)) {
        cell[1] += x.fraction * above;
      }
      if (y.fraction != T(0)) {
        cell[shape.width] += (T(1) - x.fraction) * below;
        if (x.fraction != T(0)) {
          cell[shape.width + 1] += x.fraction * below;
        }
      }
    }
  }
}
