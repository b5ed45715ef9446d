// The interface of the CPU operators' inner loops, and the choice of the variant for this processor.
//
// kernels.cpp is compiled once per instruction set. It includes no torch header and instantiates nothing from the
// standard library: otherwise the linker might pick, for all variants, a function compiled for a newer processor.
#pragma once

#include <cstdint>

namespace aligned_rcnn {

// 16-bit elements as stored; arithmetic is in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class S>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class S>
using compute_t = typename Compute<S>::type;

// The index of a cell and its weight; in transposed tables, of a bin.
template <class T>
struct Tap {
  int32_t index;
  T weight;
};

// One axis of one RoI, as lists of entries: segment i (a bin; transposed: the cell `low` + i) has
// entries[begin[i] .. begin[i + 1]).
template <class E>
struct Segments {
  const int64_t* begin;
  const E* entries;
  int32_t count;  // number of segments
  int32_t low;    // smallest and
  int32_t high;   // largest cell read; high < low if there is none
};

// A sample on one axis of a maximum: between the cells `low` and `low + 1` (see Place in geometry.h).
template <class T>
struct Spot {
  int32_t low;
  T fraction;
};

template <class T>
struct Spots {
  Segments<Spot<T>> spots;
  const uint8_t* zeros;  // per bin: whether some samples are out of reach and count as zeros
};

struct MapShape {
  int64_t channels, height, width;
};

// Strides in elements, for the operators that take both memory formats.
struct Strides {
  int64_t channel, row, cell;
};

// A rectangle of a map's gradient: rows [y0, y1), columns [x0, x1).
struct Tile {
  int64_t y0, y1, x0, x1;
};

// A thread's buffers in NCHW, each as long as a row of the map or a RoI's samples along it, whichever is longer, plus
// kVectorSlack.
template <class T>
struct Scratch {
  T* row;
  T* values;
  T* best;
  int32_t* arg;
};

// S is the element type of the features. Each function processes one RoI; a map is one image of one level. A tile's
// sums are [y, x, channel] (one channel in NCHW) with rows `stride` elements apart.
template <class S>
struct Kernels {
  using T = compute_t<S>;

  // out [PH, PW, C] from map [H, W, C].
  void (*average_nhwc)(const S* map, MapShape shape, Segments<Tap<T>> rows, Segments<Tap<T>> cols, S* out);
  // out [PH, PW] from map [H, W].
  void (*average_nchw)(const S* map, MapShape shape, Segments<Tap<T>> rows, Segments<Tap<T>> cols, T* scratch, S* out);
  // Adds to the tile from grad [PH, PW, C]; both tables transposed.
  void (*average_backward_nhwc)(const S* grad, int64_t pooled_width, MapShape shape, Segments<Tap<T>> rows,
                                Segments<Tap<T>> cols, Tile tile, T* sums, int64_t stride);
  // Adds to map [H, W] from grad [PH, PW]; `cols` transposed.
  void (*average_backward_nchw)(const S* grad, int64_t pooled_width, MapShape shape, Segments<Tap<T>> rows,
                                Segments<Tap<T>> cols, T* scratch, T* map);
  // out and argmax [PH, PW, C] from map [H, W, C]. With `interpolates`, argmax is the number of the sample in its bin;
  // without, spots are whole cells, and argmax is the cell's y * W + x. -1: nothing gets the gradient.
  void (*maximum_nhwc)(const S* map, MapShape shape, Spots<T> rows, Spots<T> cols, bool interpolates, S* out,
                       int32_t* argmax);
  // The same on one channel: out and argmax [PH, PW] from map [H, W].
  void (*maximum_nchw)(const S* map, MapShape shape, Spots<T> rows, Spots<T> cols, bool interpolates,
                       Scratch<T> scratch, S* out, int32_t* argmax);
  // Adds to the tile from grad and argmax [PH, PW, C].
  void (*maximum_backward_nhwc)(const S* grad, const int32_t* argmax, MapShape shape, Spots<T> rows, Spots<T> cols,
                                bool interpolates, Tile tile, T* sums, int64_t stride);
  // Adds to map [H, W] from grad and argmax [PH, PW].
  void (*maximum_backward_nchw)(const S* grad, const int32_t* argmax, MapShape shape, Spots<T> rows, Spots<T> cols,
                                bool interpolates, T* map);
  // Position-sensitive: averages the `channels` channels that belong to bin (ph, pw), `strides.channel` apart from
  // `map` on, and writes them to `out`, out_stride apart.
  void (*ps_average)(const S* map, Strides strides, int64_t channels, Segments<Tap<T>> rows, Segments<Tap<T>> cols,
                     int ph, int pw, S* out, int64_t out_stride);
  // Its transpose: adds grad, grad_stride apart, to the tile; `sums` points to the first of these channels.
  void (*ps_average_backward)(const S* grad, int64_t grad_stride, Strides strides, int64_t channels,
                              Segments<Tap<T>> rows, Segments<Tap<T>> cols, int ph, int pw, Tile tile, T* sums);
  // Rounds `count` elements to the features' type and stores them.
  void (*store)(const T* from, S* to, int64_t count);
};

constexpr int64_t kVectorSlack = 64;  // elements past a Scratch buffer's data that a vector may read or write

// The fastest variant that this processor supports; ATEN_CPU_CAPABILITY limits it, as it does torch.
template <class S>
const Kernels<S>& kernels();
const char* variant_name();

#define ALIGNED_RCNN_VARIANT(name) \
  namespace name {                 \
  template <class S>               \
  const Kernels<S>& variant();     \
  }
ALIGNED_RCNN_VARIANT(portable)
#if defined(__x86_64__)
ALIGNED_RCNN_VARIANT(avx2)
ALIGNED_RCNN_VARIANT(avx512)
#endif

}  // namespace aligned_rcnn
