// RoIAlign of masks that are stored over windows: one thread a bin, which adds in the order of the averages' kernel.
#pragma once

#include "device.cuh"
#include "launches.h"

namespace aligned_rcnn::cuda {

constexpr int kMaskThreads = 128;

__global__ void __launch_bounds__(kMaskThreads) masks_kernel(const MaskQuery query, int64_t bins, float* out) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t bin = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; bin < bins; bin += step) {
    const int pw = static_cast<int>(bin % query.pooled_width);
    const int ph = static_cast<int>(bin / query.pooled_width % query.pooled_height);
    const int64_t k = bin / query.pooled_width / query.pooled_height;
    const MaskWindow window = window_of(query, query.index[k]);
    float sum = 0;
    if (window.x1 < window.x2 && window.y1 < window.y2) {
      const Axis<float> columns = column_axis(query, k);
      for_each_tap(row_axis(query, k), ph, [&](int row, float row_weight) {
        if (row >= window.y1 && row < window.y2) {
          const uint8_t* line = window.pixels + (row - window.y1) * (window.x2 - window.x1);
          for_each_tap(columns, pw, [&](int column, float weight) {
            if (column >= window.x1 && column < window.x2) {
              sum = multiply_add(row_weight * weight, static_cast<float>(line[column - window.x1]), sum);
            }
          });
        }
      });
    }
    out[bin] = sum;
  }
}

}  // namespace aligned_rcnn::cuda
