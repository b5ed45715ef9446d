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
  for (int i = 0; i < SIZE; ++i) {
    for (int j = 0; j < SIZE; ++j) {
      const bool inside = 0 <= y + i && y + i < tile.height && 0 <= x + j && x + j < tile.width;
      to[i][j] = inside ? load<V>(map + ((y + i) * tile.width + x + j) * tile.channels + c) : V{};
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

void input(const float* map, MapTile tile, float* out, int64_t stride) {
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V cells[kSide][kSide], points[kSide][kSide];
    read_cells(map, tile, tile.y - 1, tile.x - 1, c, cells);
    along_both<kSide, kSide>(cells, points, of_inputs<V>);
    write_points(points, out + c, stride);
  });
}

void gradient(const float* map, MapTile tile, float* out, int64_t stride) {
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V cells[kTile][kTile], points[kSide][kSide];
    read_cells(map, tile, tile.y, tile.x, c, cells);
    along_both<kTile, kSide>(cells, points, of_gradients<V>);
    write_points(points, out + c, stride);
  });
}

void output(const float* points, int64_t stride, const float* bias, MapTile tile, float* map) {
  const int rows = int(tile.height - tile.y < kTile ? tile.height - tile.y : kTile);
  const int columns = int(tile.width - tile.x < kTile ? tile.width - tile.x : kTile);
  over_channels(tile.channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V products[kSide][kSide], cells[kTile][kTile];
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        products[i][j] = load<V>(points + (i * kSide + j) * stride + c);
      }
    }
    along_both<kSide, kTile>(products, cells, of_products<V>);
    const V added = bias == nullptr ? V{} : load<V>(bias + c);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) {
        save(cells[i][j] + added, map + ((tile.y + i) * tile.width + tile.x + j) * tile.channels + c);
      }
    }
  });
}

void filter(const float* filter, int64_t channels, bool turned, float* out, int64_t stride) {
  over_channels(channels, [&](auto zero, int64_t c) {
    using V = decltype(zero);
    V weights[3][3], points[kSide][kSide];
    for (int i = 0; i < 9; ++i) {
      weights[i / 3][i % 3] = load<V>(filter + (turned ? 8 - i : i) * channels + c);
    }
    along_both<3, kSide>(weights, points, of_filter<V>);
    write_points(points, out + c, stride);
  });
}

}  // namespace

const WinogradKernels& winograd() {
  static constexpr WinogradKernels table{input, output, gradient, filter};
  return table;
}

}  // namespace VARIANT
}  // namespace aligned_rcnn
