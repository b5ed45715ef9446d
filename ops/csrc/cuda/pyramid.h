// Checks, allocation and conversion between NCHW and channels last, around the launches.
#pragma once

#include "../arguments.h"
#include "launches.h"

namespace aligned_rcnn::cuda {

inline Tensor empty_on(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type,
                       bool channels_last = false) {
  return torch::stable::empty(sizes, type, std::nullopt, like.device(), std::nullopt, format_of(channels_last));
}

inline bool at_16_bytes(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <class T>
Query<T> query_of(const aligned_rcnn::Query<T>& query) {
  return {query.boxes,         query.levels,       query.count,         query.rule,
          query.pooled_height, query.pooled_width, query.sampling_ratio};
}

// CUDA only: the kernels take the levels by value.
inline void check_levels(size_t count) {
  STD_TORCH_CHECK(count <= kMaxLevels, "at most ", kMaxLevels, " levels on CUDA; got ", count);
}

inline void check_device(const Tensor& tensor, const Tensor& expected, const char* name) {
  STD_TORCH_CHECK(tensor.get_device_index() == expected.get_device_index() && tensor.is_cpu() == expected.is_cpu(),
                  name, " must be on the device of the first tensor");
}

// Describes the levels to the kernels; `tensors` are channels last.
template <class S>
Pyramid pyramid_of(const std::vector<Tensor>& tensors, const std::vector<double>& scales) {
  Pyramid pyramid{static_cast<int>(tensors.size()), tensors[0].size(1), true, {}};
  pyramid.aligned = pyramid.channels * sizeof(S) % 16 == 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& tensor = tensors[i];
    STD_TORCH_CHECK(tensor.size(2) < INT32_MAX && tensor.size(3) < INT32_MAX,
                    "maps must have fewer than 2^31 - 1 rows and columns");
    pyramid.levels[i] = {tensor.const_data_ptr(), tensor.size(0), static_cast<int>(tensor.size(2)),
                         static_cast<int>(tensor.size(3)), scales[i]};
    pyramid.aligned = pyramid.aligned && at_16_bytes(tensor.const_data_ptr());
  }
  return pyramid;
}

// Copies contiguous tensors from NCHW to channels last (to_last), or back.
inline void transpose_all(const std::vector<Tensor>& from, const std::vector<Tensor>& to, bool to_last, int size,
                          void* stream) {
  std::vector<Matrices> matrices;
  for (size_t i = 0; i < from.size(); ++i) {
    const int64_t channels = from[i].size(1), cells = from[i].size(2) * from[i].size(3);
    matrices.push_back({from[i].const_data_ptr(), to[i].mutable_data_ptr(), from[i].size(0), to_last ? channels : cells,
                        to_last ? cells : channels});
  }
  transpose(matrices.data(), static_cast<int>(matrices.size()), size, stream);
}

// Converts tensors to channels last, without a copy if they are `already`.
inline std::vector<Tensor> channels_last_of(const std::vector<Tensor>& tensors, bool already, int size, void* stream) {
  if (already) {
    return tensors;
  }
  std::vector<Tensor> copies;
  for (const Tensor& tensor : tensors) {
    copies.push_back(
        empty_on(tensor, {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)}, tensor.scalar_type(), true));
  }
  transpose_all(tensors, copies, true, size, stream);
  return copies;
}

}  // namespace aligned_rcnn::cuda
