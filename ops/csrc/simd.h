// Vectors of the size that the compiler's flags allow, and conversions of 16-bit floats.
// Included by kernels.cpp and match_kernels.cpp, inside their variant's namespace.

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kAccumulators = 16;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kAccumulators = 8;
#else
constexpr int kVectorBytes = 16;
constexpr int kAccumulators = 8;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t index __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t bits __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t packed __attribute__((vector_size(kVectorBytes / 2)));
};

template <>
struct Simd<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t index __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using vector_t = typename Simd<T>::type;
template <class T>
using index_t = typename Simd<T>::index;
template <class T>
constexpr int lanes = kVectorBytes / int(sizeof(T));

static inline float bits_to_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

// ---- One element ----

// a * b + c, rounded once where the processor has FMA. Whether a plain expression is fused is the compiler's choice:
// then the CPU's variants and the GPU might differ in the last bit.
static inline float multiply_add(float a, float b, float c) {
#ifdef __FMA__
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
static inline double multiply_add(double a, double b, double c) {
#ifdef __FMA__
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

static inline float widen(float value) { return value; }
static inline double widen(double value) { return value; }
static inline float widen(BFloat16 value) { return bits_to_float(uint32_t(value.bits) << 16); }
static inline float widen(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  if (rest >= 0x7c00) {  // infinity or NaN
    return bits_to_float(sign | 0x7f800000 | (rest << 13));
  }
  if (rest >= 0x0400) {
    return bits_to_float(sign | ((rest << 13) + (112u << 23)));
  }
  return bits_to_float(sign | float_to_bits(float(rest) * 0x1p-24f));  // subnormal: exact
}

static inline void narrow(float value, BFloat16* to) {
  const uint32_t bits = float_to_bits(value);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = nan ? uint16_t(0x7fc0) : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline void narrow(float value, Half* to) {
  const uint32_t bits = float_to_bits(value), rest = bits & 0x7fffffff;
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  uint32_t half;
  if (rest > 0x7f800000) {
    half = 0x7e00;
  } else if (rest >= 0x477ff000) {  // rounds past the largest half
    half = 0x7c00;
  } else if (rest >= 0x38800000) {  // normal: round to nearest even in the 13 dropped bits
    half = (rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13;
  } else {  // subnormal: the addition rounds to multiples of 2^-24
    half = float_to_bits(bits_to_float(rest) + 0.5f) - 0x3f000000;
  }
  to->bits = uint16_t(sign | half);
}

// ---- A vector of elements ----

static inline vector_t<float> load_vector(const float* from) {
  vector_t<float> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

static inline vector_t<double> load_vector(const double* from) {
  vector_t<double> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

static inline vector_t<float> load_vector(const BFloat16* from) {
  Simd<float>::packed packed;
  __builtin_memcpy(&packed, from, sizeof packed);
  return (vector_t<float>)(__builtin_convertvector(packed, Simd<float>::bits) << 16);
}

static inline vector_t<float> load_vector(const Half* from) {
#if defined(__AVX512F__)
  return (vector_t<float>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__F16C__)
  return (vector_t<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#else
  vector_t<float> value;
  for (int i = 0; i < lanes<float>; ++i) {
    value[i] = widen(from[i]);
  }
  return value;
#endif
}

static inline void save(vector_t<float> value, float* to) { __builtin_memcpy(to, &value, sizeof value); }
static inline void save(vector_t<double> value, double* to) { __builtin_memcpy(to, &value, sizeof value); }

static inline void save(vector_t<float> value, BFloat16* to) {
  const auto bits = (Simd<float>::bits)value;
  const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto nan = (Simd<float>::bits)(value != value);
  const auto packed = __builtin_convertvector((nan & 0x7fc0) | (~nan & rounded), Simd<float>::packed);
  __builtin_memcpy(to, &packed, sizeof packed);
}

static inline void save(vector_t<float> value, Half* to) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < lanes<float>; ++i) {
    narrow(value[i], to + i);
  }
#endif
}

static inline void save_index(index_t<float> value, int32_t* to) { __builtin_memcpy(to, &value, sizeof value); }
static inline void save_index(index_t<double> value, int32_t* to) {
  for (int i = 0; i < lanes<double>; ++i) {
    to[i] = int32_t(value[i]);
  }
}

// ---- Packs: one loop body for whole vectors (V = vector_t<T>) and for the remaining elements (V = T) ----

template <class V>
struct Pack;
template <>
struct Pack<float> {
  using index = int32_t;
  using lane = int32_t;
  static constexpr int size = 1;
};
template <>
struct Pack<double> {
  using index = int64_t;
  using lane = int64_t;
  static constexpr int size = 1;
};
template <>
struct Pack<vector_t<float>> {
  using index = index_t<float>;
  using lane = int32_t;
  static constexpr int size = lanes<float>;
};
template <>
struct Pack<vector_t<double>> {
  using index = index_t<double>;
  using lane = int64_t;
  static constexpr int size = lanes<double>;
};

template <class V, class S>
static inline V load(const S* from) {
  if constexpr (Pack<V>::size == 1) {
    return widen(*from);
  } else {
    return load_vector(from);
  }
}

static inline void save(float value, float* to) { *to = value; }
static inline void save(double value, double* to) { *to = value; }
static inline void save(float value, BFloat16* to) { narrow(value, to); }
static inline void save(float value, Half* to) { narrow(value, to); }
static inline void save_index(int32_t value, int32_t* to) { *to = value; }
static inline void save_index(int64_t value, int32_t* to) { *to = int32_t(value); }

template <class V, class T>
static inline V splat(T value) {
  return value - V{};  // x - 0 is x for every x
}

// Loads as many indices as V has elements.
template <class V>
static inline typename Pack<V>::index load_index(const int32_t* from) {
  typedef int32_t packed __attribute__((vector_size(sizeof(int32_t) * Pack<V>::size)));
  packed value;
  __builtin_memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, typename Pack<V>::index);
}
