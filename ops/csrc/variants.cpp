// Choose the compiled variant of the kernels for this processor.
#include <cstdlib>
#include <cstring>

#include "kernels.h"
#include "match.h"
#include "rank.h"
#include "winograd.h"

namespace aligned_rcnn {
namespace {

enum class Variant { portable, avx2, avx512 };

Variant choose() {
#if defined(__x86_64__)
  const char* capability = std::getenv("ATEN_CPU_CAPABILITY");
  const bool up_to_portable = capability != nullptr && std::strcmp(capability, "default") == 0;
  const bool up_to_avx2 = capability != nullptr && std::strcmp(capability, "avx2") == 0;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && !up_to_portable && !up_to_avx2) {
    return Variant::avx512;
  }
  if (avx2 && !up_to_portable) {
    return Variant::avx2;
  }
#endif
  return Variant::portable;
}

Variant chosen() {
  static const Variant variant = choose();
  return variant;
}

}  // namespace

template <class S>
const Kernels<S>& kernels() {
#if defined(__x86_64__)
  if (chosen() == Variant::avx512) {
    return avx512::variant<S>();
  }
  if (chosen() == Variant::avx2) {
    return avx2::variant<S>();
  }
#endif
  return portable::variant<S>();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template const Kernels<Half>& kernels<Half>();
template const Kernels<BFloat16>& kernels<BFloat16>();

template <class T>
const MatchKernels<T>& match_kernels() {
#if defined(__x86_64__)
  if (chosen() == Variant::avx512) {
    return avx512::matching<T>();
  }
  if (chosen() == Variant::avx2) {
    return avx2::matching<T>();
  }
#endif
  return portable::matching<T>();
}

template const MatchKernels<float>& match_kernels<float>();
template const MatchKernels<double>& match_kernels<double>();

template <class T>
const RankKernels<T>& rank_kernels() {
#if defined(__x86_64__)
  if (chosen() == Variant::avx512) {
    return avx512::ranking<T>();
  }
  if (chosen() == Variant::avx2) {
    return avx2::ranking<T>();
  }
#endif
  return portable::ranking<T>();
}

template const RankKernels<float>& rank_kernels<float>();
template const RankKernels<double>& rank_kernels<double>();

const WinogradKernels& winograd_kernels() {
#if defined(__x86_64__)
  if (chosen() == Variant::avx512) {
    return avx512::winograd();
  }
  if (chosen() == Variant::avx2) {
    return avx2::winograd();
  }
#endif
  return portable::winograd();
}

const char* variant_name() {
  constexpr const char* names[] = {"portable", "AVX2", "AVX-512"};
  return names[static_cast<int>(chosen())];
}

}  // namespace aligned_rcnn
