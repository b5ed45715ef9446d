// Half precision on the host; see cuda_runtime.h.
#pragma once

#include <cstdint>
#include <cstring>

using __half = _Float16;

inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half __float2half_rn(float value) { return static_cast<__half>(value); }
inline __half __ushort_as_half(uint16_t bits) {
  __half value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint16_t __half_as_ushort(__half value) {
  uint16_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
