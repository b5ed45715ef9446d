// The part of CUDA that the operators' kernels use, on the host: their unchanged sources compile against this header
// and run without a GPU.
//
// Blocks run one after the other; a block's threads are fibers that run in turn from barrier to barrier. It is stricter
// than a GPU, to find faults: shared memory has exactly the requested size and is filled with NaN; a launch beyond
// CUDA's limits, or a barrier that some threads do not reach, throws; and the order of threads can be reversed, so that
// a missing barrier changes the result.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr explicit dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline dim3 threadIdx(0), blockIdx(0), blockDim(0), gridDim(0);

void __syncthreads();

template <class V>
V __ldg(const V* from) {
  return *from;
}
inline unsigned atomicOr(unsigned* to, unsigned bits) {
  const unsigned before = *to;
  *to |= bits;
  return before;
}
inline unsigned atomicAdd(unsigned* to, unsigned more) {
  const unsigned before = *to;
  *to += more;
  return before;
}
template <class Bits>
Bits atomicMax(Bits* to, Bits bits) {
  const Bits before = *to;
  *to = std::max(before, bits);
  return before;
}
template <class To, class From>
To same_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof result);
  return result;
}
inline unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return same_bits<float>(bits); }
inline long long __double_as_longlong(double value) { return same_bits<long long>(value); }
inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

using std::max;
using std::min;

namespace aligned_rcnn {

unsigned char* shared_memory();
void run_on_host(int64_t blocks, dim3 threads, size_t shared, const std::function<void()>& thread);
void clear(void* memory, size_t bytes, void* stream);

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, size_t shared, void*,
            const Arguments&... arguments) {
  static_assert((sizeof(Parameters) + ...) <= 4096, "a kernel takes 4 KiB of arguments");
  run_on_host(blocks, threads, shared, [&] { kernel(arguments...); });
}

}  // namespace aligned_rcnn
