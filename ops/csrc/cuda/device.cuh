// CUDA's library as far as the kernels use it: 16-bit floats, 16-byte loads and stores, shared memory, launches.
//
// The tests also compile the kernels for the host, against headers of the same names that run a block's threads in
// turn; these implement nothing else of CUDA.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../geometry.h"
#include "../kernels.h"

namespace aligned_rcnn {

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(Half value) { return __half2float(__ushort_as_half(value.bits)); }
__device__ inline float widen(BFloat16 value) { return __bfloat162float(__ushort_as_bfloat16(value.bits)); }

__device__ inline void narrow(float value, float& to) { to = value; }
__device__ inline void narrow(double value, double& to) { to = value; }
__device__ inline void narrow(float value, Half& to) { to.bits = __half_as_ushort(__float2half_rn(value)); }
__device__ inline void narrow(float value, BFloat16& to) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

// a * b + c, rounded once, as in the CPU's kernels.
__device__ inline float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// N consecutive elements that are read and written together. If their size is a multiple of 16 bytes, so must be their
// address.
template <class S, int N>
struct Pack {
  S value[N];
};

// The number of elements in 16 bytes.
template <class S>
constexpr int kWide = 16 / static_cast<int>(sizeof(S));

template <int N, class S>
__device__ inline Pack<S, N> load(const S* from) {
  Pack<S, N> pack;
  if constexpr (sizeof pack % 16 == 0) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof pack) / 16; ++i) {
      const uint4 bits = __ldg(reinterpret_cast<const uint4*>(from) + i);
      memcpy(pack.value + i * kWide<S>, &bits, sizeof bits);
    }
  } else {
    for (int i = 0; i < N; ++i) {
      pack.value[i] = from[i];
    }
  }
  return pack;
}

template <int N, class S>
__device__ inline void store(const Pack<S, N>& pack, S* to) {
  if constexpr (sizeof pack % 16 == 0) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof pack) / 16; ++i) {
      uint4 bits;
      memcpy(&bits, pack.value + i * kWide<S>, sizeof bits);
      reinterpret_cast<uint4*>(to)[i] = bits;
    }
  } else {
    for (int i = 0; i < N; ++i) {
      to[i] = pack.value[i];
    }
  }
}

template <int N, class S, class T>
__device__ inline void load_widened(const S* from, T (&value)[N]) {
  const Pack<S, N> pack = load<N>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    value[i] = widen(pack.value[i]);
  }
}

template <int N, class S, class T>
__device__ inline void store_rounded(const T (&value)[N], S* to) {
  Pack<S, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    narrow(value[i], pack.value[i]);
  }
  store(pack, to);
}

#if defined(__CUDACC__)

// The block's dynamic shared memory; its size is an argument of the launch.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ uint4 aligned_rcnn_shared[];
  return reinterpret_cast<unsigned char*>(aligned_rcnn_shared);
}

inline void check(cudaError_t error) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
  }
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, dim3 threads, size_t shared, void* stream,
            const Arguments&... arguments) {
  if (blocks > 0) {
    kernel<<<dim3(static_cast<unsigned>(blocks)), threads, shared, static_cast<cudaStream_t>(stream)>>>(arguments...);
    check(cudaGetLastError());
  }
}

inline void clear(void* memory, size_t bytes, void* stream) {
  if (bytes > 0) {
    check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)));
  }
}

#endif

// Allocates pieces of shared memory, aligned for any type; the host adds up their sizes with `shared_bytes`.
class SharedMemory {
 public:
  __device__ SharedMemory() : next_(shared_memory()) {}

  template <class E>
  __device__ E* take(int count) {
    E* piece = reinterpret_cast<E*>(next_);
    next_ += (count * sizeof(E) + 15) / 16 * 16;
    return piece;
  }

 private:
  unsigned char* next_;
};

template <class E>
constexpr size_t shared_bytes(int64_t count) {
  return (count * sizeof(E) + 15) / 16 * 16;
}

// The most blocks of a launch; with more work items, each block processes several.
constexpr int64_t kMaxBlocks = int64_t(1) << 30;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The number of lanes that divide a cell's channels: a power of two, at most a warp.
inline int lanes_for(int64_t vectors) {
  int lanes = 1;
  while (lanes < 32 && lanes < vectors) {
    lanes *= 2;
  }
  return lanes;
}

}  // namespace aligned_rcnn
