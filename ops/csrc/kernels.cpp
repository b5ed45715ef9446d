// The inner loops of the CPU operators, compiled once per instruction set, whose name is VARIANT.
// The order of summation does not depend on the number of threads.

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

inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Runs `body` over all channels: first in blocks of as many vectors as there are registers for their sums, then in
// smaller blocks, then one by one.
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

#include "average.inl"
#include "maximum.inl"

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
  static constexpr Kernels<S> table{average_nhwc<S>,
                                    average_nchw<S>,
                                    average_backward_nhwc<S>,
                                    average_backward_nchw<S>,
                                    maximum_nhwc<S>,
                                    maximum_nchw<S>,
                                    maximum_backward_nhwc<S>,
                                    maximum_backward_nchw<S>,
                                    ps_average<S>,
                                    ps_average_backward<S>,
                                    store<S>};
  return table;
}

template const Kernels<float>& variant<float>();
template const Kernels<double>& variant<double>();
template const Kernels<Half>& variant<Half>();
template const Kernels<BFloat16>& variant<BFloat16>();

}  // namespace VARIANT
}  // namespace aligned_rcnn
