// The inner loops of the CPU operators: what they take, and where to find the variant for this processor.
//
// kernels.cpp is compiled once per instruction set. It sees no torch header and instantiates nothing from the standard
// library, so that no function compiled for a newer processor can be picked by the linker for an older one.
#pragma once

#include <cstdint>

namespace aligned_rcnn {

// Features in 16 bits, as stored; arithmetic on them is done in float.
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

// A cell and its weight; in transposed tables, a bin and its weight.
template <class T>
struct Tap {
  int32_t index;
  T weight;
};

// One axis of one RoI: segment i (a bin; transposed: a cell, counted from `low`) owns entries[begin[i] .. begin[i +
// 1]).
template <class E>
struct Segments {
  const int64_t* begin;
  const E* entries;
  int32_t count;  // segments
  int32_t low;    // the smallest and
  int32_t high;   // the largest cell touched; high < low when there is none
};

// One axis of a RoI under a maximum: the places a bin looks at (see geometry.h).
template <class T>
struct Spot {
  int32_t low;
  T fraction;
};

template <class T>
struct Spots {
  Segments<Spot<T>> spots;
  const uint8_t* zeros;  // per bin: whether samples out of reach stand for zeros
};

struct MapShape {
  int64_t channels, height, width;
};

// The elements between neighbours, for the operators that take maps of either memory format.
struct Strides {
  int64_t channel, row, cell;
};

// Some pixels of a map's gradient: rows y0 .. y1, columns x0 .. x1.
struct Tile {
  int64_t y0, y1, x0, x1;
};

// What a thread works with in NCHW: each has room for a row of cells and for a RoI's places along it, and whole
// vectors.
template <class T>
struct Scratch {
  T* row;
  T* values;
  T* best;
  int32_t* arg;
};

// S is the type of the features. Each function treats one RoI; maps are one image of one level. A tile's sums have all
// its channels together (one in NCHW), and its rows `stride` apart.
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
  // out and argmax [PH, PW, C] from map [H, W, C]. `interpolates`: spots lie between cells, and argmax is the spot's
  // number in its bin; else they are cells, and argmax is the cell's y * W + x. -1: no gradient.
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
  // Position-sensitive: the bin (ph, pw) reads `channels` channels of its own, from `map` on, `strides.channel` apart;
  // their averages go to `out`, out_stride apart.
  void (*ps_average)(const S* map, Strides strides, int64_t channels, Segments<Tap<T>> rows, Segments<Tap<T>> cols,
                     int ph, int pw, S* out, int64_t out_stride);
  // The transposed: adds to the tile, whose first of these channels is at `sums`, from grad, grad_stride apart.
  void (*ps_average_backward)(const S* grad, int64_t grad_stride, Strides strides, int64_t channels,
                              Segments<Tap<T>> rows, Segments<Tap<T>> cols, int ph, int pw, Tile tile, T* sums);
  // Rounds `count` elements to the features' type.
  void (*store)(const T* from, S* to, int64_t count);
};

constexpr int64_t kVectorSlack = 64;  // elements beyond what is used that a vector may touch in a Scratch

// The best variant that this processor runs, at most the one that ATEN_CPU_CAPABILITY names (as for torch itself).
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
