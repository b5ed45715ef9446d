// The inner loops of Winograd's convolution, compiled once per instruction set, whose name is VARIANT.
//
// The points are 0, 1, -1, 1/2, -2 and infinity: with 2 or -1/2 in the place of one of the last two finite ones,
// rounding errors are twice as large. All factors but those of the filter are exact.

#include "winograd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace aligned_rcnn {
namespace VARIANT {
namespace {

#include "simd.h"

// ---- Along one side ----

// The values of kSide inputs.
template <class V>
inline void of_inputs(const V* d, V* to) {
  const V odd = d[3] - d[1], even = d[4] - d[2];
  to[0] = d[0] + 1.5f * odd + (even - d[2]);
  to[1] = odd + 1.5f * d[3] + 0.5f * d[2] + d[4];
  to[2] = d[1] + 0.5f * d[3] - 2.5f * d[2] + d[4];
  to[3] = even + 2.0f * odd;
  to[4] = even - 0.5f * odd;
  to[5] = (d[1] - 2.0f * d[3]) + 1.5f * even + d[5];
}

// kTile outputs of the products at kSide points.
template <class V>
inline void of_products(const V* m, V* to) {
  const V sum = m[1] + m[2], difference = m[1] - m[2];
  to[0] = m[0] + sum + m[3] + m[4];
  to[1] = difference + 0.5f * m[3] - 2.0f * m[4];
  to[2] = sum + 0.25f * m[3] + 4.0f * m[4];
  to[3] = difference + 0.125f * m[3] - 8.0f * m[4] + m[5];
}

// The transpose of `of_products`.
template <class V>
inline void of_gradients(const V* g, V* to) {
  const V even = g[0] + g[2], odd = g[1] + g[3];
  to[0] = g[0];
  to[1] = even + odd;
  to[2] = even - odd;
  to[3] = g[0] + 0.5f * g[1] + 0.25f * g[2] + 0.125f * g[3];
  to[4] = g[0] - 2.0f * g[1] + 4.0f * g[2] - 8.0f * g[3];
  to[5] = g[3];
}

// The values of a filter's 3 weights.
template <class V>
inline void of_filter(const V* w, V* to) {
  const V ends = w[0] + w[2];
  to[0] = w[0];
  to[1] = (1.0f / 3) * (ends + w[1]);
  to[2] = (1.0f / 3) * (w[1] - ends);
  to[3] = (-4.0f / 15) * (4.0f * w[0] + 2.0f * w[1] + w[2]);
  to[4] = (1.0f / 15) * (w[0] - 2.0f * w[1] + 4.0f * w[2]);
  to[5] = w[2];
}

// The transpose of `of_filter`.
template <class V>
inline void to_filter(const V* m, V* to) {
  const V difference = (1.0f / 3) * (m[1] - m[2]), third = (4.0f / 15) * m[3], fourth = (1.0f / 15) * m[4];
  to[0] = m[0] + difference - 4.0f * third + fourth;
  to[1] = (1.0f / 3) * (m[1] + m[2]) - 2.0f * (third + fourth);
  to[2] = difference - third + 4.0f * fourth + m[5];
}

// ---- Along both sides ----

// Applies `along` to the columns, then to the rows, of from [FROM, FROM]; to [TO, TO].
template <int FROM, int TO, class V, class Along>
inline void along_both(const V (&from)[FROM][FROM], V (&to)[TO][TO], const Along& along) {
  V half[FROM][TO];  // by column
  for (int x = 0; x < FROM; ++x) {
    V column[FROM];
    for (int y = 0; y < FROM; ++y) {
      column[y] = from[y][x];
    }
    along(column, half[x]);
  }
  for (int y = 0; y < TO; ++y) {
    V row[FROM];
    for (int x = 0; x < FROM; ++x) {
      row[x] = half[x][y];
    }
    along(row, to[y]);
  }
}

// Calls body(V(), c) for all channels: by vectors, then one by one.
template <class Body>
inline void over_channels(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + lanes<float> <= channels; c += lanes<float>) {
    body(vector_t<float>{}, c);
  }
  for (; c < channels; ++c) {
    body(0.0f, c);
  }
}

// Reads SIZE x SIZE cells from (y, x) on; beside the map are zeros.
template <int SIZE, class V>
inline void read_cells(const float* map, const MapTile& tile, int64_t y, int64_t x, int64_t c, V (&to)[SIZE][SIZE]) {
  const bool whole = 0 <= y && y + SIZE <= tile.height && 0 <= x && x + SIZE <= tile.width;
  for (int i = 0; i < SIZE; ++i) {
    for (int j = 0; j < SIZE; ++j) {
      const bool inside = whole || (0 <= y + i && y + i < tile.height && 0 <= x + j && x + j < tile.width);
      to[i][j] = inside ? load<V>(map + ((y + i) * tile.width + x + j) * tile.channels + c) : V{};
    }
  }
}

template <class V>
inline void read_points(const float* points, int64_t stride, V (&to)[kSide][kSide]) {
  for (int i = 0; i < kSide; ++i) {
    for (int j = 0; j < kSide; ++j) {
      to[i][j] = load<V>(points + (i * kSide + j) * stride);
    }
  }
}

template <class V>
inline void write_points(const V (&from)[kSide][kSide], float* to, int64_t stride) {
  for (int i = 0; i < kSide; ++i) {
    for (int j = 0; j < kSide; ++j) {
      save(from[i][j], to + (i * kSide + j) * stride);
    }
  }
}

constexpr int kPanel = 2 * lanes<float>;
constexpr int kRows = kAccumulators == 16 ? 12 : 6;  // of a block, whose sums are in registers

void input(const float* map, MapTile tile, float* out, int64_t stride) {
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V cells[kSide][kSide], points[kSide][kSide];
    read_cells(map, tile, tile.y - 1, tile.x - 1, c, cells);
    along_both<kSide, kSide>(cells, points, of_inputs<V>);
    write_points(points, out + c, stride);
  });
}

// Writes the values at the points of row ROW alone, of SIZE x SIZE cells of a tile from `margin` cells before it on.
template <int ROW, int SIZE, class Along>
inline void write_row(const float* map, const MapTile& tile, int64_t margin, float* out, int64_t stride,
                      int64_t panel_stride, const Along& along) {
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V cells[SIZE][SIZE], row[SIZE], points[kSide];
    read_cells(map, tile, tile.y - margin, tile.x - margin, c, cells);
    for (int x = 0; x < SIZE; ++x) {
      V column[SIZE];
      for (int y = 0; y < SIZE; ++y) {
        column[y] = cells[y][x];
      }
      along(column, points);
      row[x] = points[ROW];
    }
    along(row, points);
    for (int j = 0; j < kSide; ++j) {
      save(points[j], out + j * stride + c / kPanel * panel_stride + c % kPanel);
    }
  });
}

template <int ROW>
void input_row(const float* map, MapTile tile, float* out, int64_t stride, int64_t panel_stride) {
  write_row<ROW, kSide>(map, tile, 1, out, stride, panel_stride, [](const auto* d, auto* to) { of_inputs(d, to); });
}

template <int ROW>
void gradient_row(const float* map, MapTile tile, float* out, int64_t stride, int64_t panel_stride) {
  write_row<ROW, kTile>(map, tile, 0, out, stride, panel_stride, [](const auto* g, auto* to) { of_gradients(g, to); });
}

void output(const float* points, int64_t stride, const float* bias, MapTile tile, float* map) {
  const int rows = int(tile.height - tile.y < kTile ? tile.height - tile.y : kTile);
  const int columns = int(tile.width - tile.x < kTile ? tile.width - tile.x : kTile);
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V products[kSide][kSide], cells[kTile][kTile];
    read_points(points + c, stride, products);
    along_both<kSide, kTile>(products, cells, of_products<V>);
    const V added = bias == nullptr ? V{} : load<V>(bias + c);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) {
        save(cells[i][j] + added, map + ((tile.y + i) * tile.width + tile.x + j) * tile.channels + c);
      }
    }
  });
}

template <class V>
inline void read_filter(const float* filter, int64_t channels, bool turned, V (&points)[kSide][kSide]) {
  V weights[3][3];
  for (int i = 0; i < 9; ++i) {
    weights[i / 3][i % 3] = load<V>(filter + (turned ? 8 - i : i) * channels);
  }
  along_both<3, kSide>(weights, points, of_filter<V>);
}

void filters(const float* filters, int64_t count, int64_t channels, int64_t number, float* out, int64_t stride) {
  const int64_t first = number * kPanel, columns = count - first < kPanel ? count - first : kPanel;
  float weights[9 * kPanel] = {};  // of all filters for one channel
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t k = 0; k < columns; ++k) {
      for (int i = 0; i < 9; ++i) {
        weights[i * kPanel + k] = filters[((first + k) * 9 + i) * channels + c];
      }
    }
    for (int64_t k = 0; k < kPanel; k += lanes<float>) {
      vector_t<float> points[kSide][kSide];
      read_filter(weights + k, kPanel, false, points);
      write_points(points, out + (number * channels + c) * kPanel + k, stride);
    }
  }
}

void turned_filters(const float* filters, int64_t count, int64_t channels, int64_t number, float* out, int64_t stride) {
  const int64_t first = number * kPanel;
  const int64_t columns = channels - first < kPanel ? channels - first : kPanel;
  for (int64_t k = 0; k < count; ++k) {
    float* to = out + (number * count + k) * kPanel;
    over_channels(columns, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      V points[kSide][kSide];
      read_filter(filters + k * 9 * channels + first + c, channels, true, points);
      write_points(points, to + c, stride);
    });
    for (int64_t c = columns; c < kPanel; ++c) {
      for (int i = 0; i < kPoints; ++i) {
        to[i * stride + c] = 0.0f;
      }
    }
  }
}

void weights(const float* points, int64_t stride, int64_t channels, float* filter) {
  over_channels(channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V products[kSide][kSide], weights[3][3];
    read_points(points + c, stride, products);
    along_both<kSide, 3>(products, weights, to_filter<V>);
    for (int i = 0; i < 9; ++i) {
      save(weights[i / 3][i % 3], filter + i * channels + c);
    }
  });
}

// ---- Products of matrices ----

// A matrix whose element (row, i) is at row * stride + i, or, transposed, at i * stride + row.
template <bool TRANSPOSED>
struct Matrix {
  const float* data;
  int64_t stride;

  float at(int64_t row, int64_t i) const { return data[TRANSPOSED ? i * stride + row : row * stride + i]; }
  Matrix from(int64_t row) const { return {data + (TRANSPOSED ? row : row * stride), stride}; }
};

// Multiplies ROWS rows by a panel.
template <int ROWS, bool TRANSPOSED>
inline void multiply_block(Matrix<TRANSPOSED> matrix, int64_t inner, const float* panel, bool add, float* out,
                           int64_t out_stride) {
  using V = vector_t<float>;
  V sums[ROWS][2] = {};
  for (int64_t i = 0; i < inner; ++i) {
    const V low = load<V>(panel + i * kPanel), high = load<V>(panel + i * kPanel + lanes<float>);
    for (int row = 0; row < ROWS; ++row) {
      const V factor = splat<V>(matrix.at(row, i));
      sums[row][0] += factor * low;
      sums[row][1] += factor * high;
    }
  }
  for (int row = 0; row < ROWS; ++row) {
    float* const to = out + row * out_stride;
    save(add ? load<V>(to) + sums[row][0] : sums[row][0], to);
    save(add ? load<V>(to + lanes<float>) + sums[row][1] : sums[row][1], to + lanes<float>);
  }
}

// Multiplies fewer than kRows rows by a panel.
template <int ROWS, bool TRANSPOSED>
inline void multiply_rest(Matrix<TRANSPOSED> matrix, int64_t rows, int64_t inner, const float* panel, bool add,
                          float* out, int64_t out_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) {
      multiply_block<ROWS>(matrix, inner, panel, add, out, out_stride);
    } else {
      multiply_rest<ROWS - 1>(matrix, rows, inner, panel, add, out, out_stride);
    }
  }
}

template <bool TRANSPOSED>
inline void multiply_panels(Matrix<TRANSPOSED> matrix, int64_t rows, int64_t inner, const float* panels,
                            int64_t panel_stride, int64_t panel_count, bool add, float* out) {
  const int64_t out_stride = panel_count * kPanel;
  for (int64_t p = 0; p < panel_count; ++p, panels += panel_stride, out += kPanel) {
    int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
      multiply_block<kRows>(matrix.from(row), inner, panels, add, out + row * out_stride, out_stride);
    }
    multiply_rest<kRows - 1>(matrix.from(row), rows - row, inner, panels, add, out + row * out_stride, out_stride);
  }
}

void multiply(const float* matrix, int64_t rows, int64_t inner, const float* panels, int64_t panel_count, float* out) {
  constexpr int64_t kTerms = 128;  // of a sum, which are added up by themselves: rounding errors grow less
  for (int64_t i = 0; i < inner; i += kTerms) {
    multiply_panels(Matrix<false>{matrix + i, inner}, rows, inner - i < kTerms ? inner - i : kTerms,
                    panels + i * kPanel, inner * kPanel, panel_count, i > 0, out);
  }
}

void correlate(const float* matrix, int64_t stride, int64_t rows, int64_t inner, const float* panels,
               int64_t panel_count, bool add, float* out) {
  multiply_panels(Matrix<true>{matrix, stride}, rows, inner, panels, inner * kPanel, panel_count, add, out);
}

}  // namespace

const WinogradKernels& winograd() {
  static constexpr WinogradKernels table{
      input,
      output,
      {input_row<0>, input_row<1>, input_row<2>, input_row<3>, input_row<4>, input_row<5>},
      {gradient_row<0>, gradient_row<1>, gradient_row<2>, gradient_row<3>, gradient_row<4>, gradient_row<5>},
      filters,
      turned_filters,
      weights,
      multiply,
      correlate,
      kPanel};
  return table;
}

}  // namespace VARIANT
}  // namespace aligned_rcnn
