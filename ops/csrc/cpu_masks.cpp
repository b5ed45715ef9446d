// The operator `average_masks` on the CPU: RoIAlign of masks, each of which is stored over a window of its image.
#include "mask_arguments.h"

namespace aligned_rcnn {
namespace {

// One axis of a RoI: the weighted cells of each bin that lie in [low, high), counted from `low`.
class Taps {
 public:
  // Returns whether there are any.
  bool fill(const Axis<float>& axis, int bins, int64_t low, int64_t high) {
    begin_.assign(1, 0);
    entries_.clear();
    low_ = INT32_MAX;
    high_ = -1;
    for (int bin = 0; bin < bins; ++bin) {
      for_each_tap(axis, bin, [&](int cell, float weight) {
        if (cell >= low && cell < high) {
          const int32_t index = static_cast<int32_t>(cell - low);
          low_ = std::min(low_, index);
          high_ = std::max(high_, index);
          entries_.push_back({index, weight});
        }
      });
      begin_.push_back(static_cast<int64_t>(entries_.size()));
    }
    return high_ >= 0;
  }
  // Counts from the first cell that is read, so that only the cells from there to the last need to exist.
  void shift_to_first() {
    for (Tap<float>& tap : entries_) {
      tap.index -= low_;
    }
  }
  int64_t low() const { return low_; }
  int64_t count() const { return high_ - low_ + 1; }
  Segments<Tap<float>> segments() const {
    return {begin_.data(), entries_.data(), static_cast<int32_t>(begin_.size() - 1), 0,
            static_cast<int32_t>(count() - 1)};
  }

 private:
  std::vector<int64_t> begin_;
  std::vector<Tap<float>> entries_;
  int32_t low_, high_;
};

Tensor average_masks_cpu(Tensor pixels, Tensor windows, Tensor offsets, Tensor boxes, Tensor index, int64_t height,
                         int64_t width, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                         std::string rule) {
  const MaskArguments arguments(pixels, windows, offsets, boxes, index, height, width, pooled_height, pooled_width,
                                sampling_ratio, rule);
  const MaskQuery& query = arguments.query;
  Tensor output = empty({query.count, 1, pooled_height, pooled_width}, ScalarType::Float, false);
  float* out = mutable_data_of<float>(output);
  const int64_t bins = pooled_height * pooled_width;
  parallel_tasks(query.count, [&](int64_t k) {
    thread_local Taps rows, columns;
    thread_local std::vector<float> map, scratch;
    const MaskWindow window = window_of(query, query.index[k]);
    std::fill_n(out + k * bins, bins, 0.0f);
    // Rows beside the window are left out. Columns are not: their products are not exact, and the kernel fuses some of
    // them with the addition and others not, by their number.
    if (!rows.fill(row_axis(query, k), query.pooled_height, window.y1, window.y2) ||
        !columns.fill(column_axis(query, k), query.pooled_width, 0, query.width)) {
      return;
    }
    const int64_t x1 = std::max(window.x1, columns.low()), x2 = std::min(window.x2, columns.low() + columns.count());
    if (x1 >= x2) {
      return;
    }
    const int64_t stride = window.x2 - window.x1;
    const uint8_t* from = window.pixels + rows.low() * stride + x1 - window.x1;
    map.assign(rows.count() * columns.count(), 0.0f);
    for (int64_t y = 0; y < rows.count(); ++y, from += stride) {
      std::copy_n(from, x2 - x1, map.data() + y * columns.count() + x1 - columns.low());
    }
    rows.shift_to_first();
    columns.shift_to_first();
    scratch.resize(columns.count() + kVectorSlack);
    kernels<float>().average_nchw(map.data(), {1, rows.count(), columns.count()}, rows.segments(), columns.segments(),
                                  scratch.data(), out + k * bins);
  });
  return output;
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("average_masks", TORCH_BOX(&aligned_rcnn::average_masks_cpu));
}
