// The operator `nms`, on the CPU.
#include <cmath>
#include <limits>
#include <unordered_map>

#include "arguments.h"
#include "match.h"

namespace aligned_rcnn {
namespace {

// The boxes kept of one group, coordinate by coordinate, followed by empty boxes up to a multiple of kPaddedRegions.
template <class T>
class Kept {
 public:
  Regions<T> regions() const {
    return {columns_[0].data(), columns_[1].data(), columns_[2].data(), columns_[3].data(), count_};
  }

  void add(const T* box) {
    for (int i = 0; i < 4; ++i) {
      if (count_ % kPaddedRegions == 0) {
        columns_[i].resize(count_ + kPaddedRegions, T(0));
      }
      columns_[i][count_] = box[i];
    }
    ++count_;
  }

 private:
  std::vector<T> columns_[4];
  int64_t count_ = 0;
};

// The largest T that is no larger than the threshold: an IoU of type T exceeds both or none.
template <class T>
T round_down(double threshold) {
  const T nearest = T(threshold);
  return double(nearest) > threshold ? std::nextafter(nearest, -std::numeric_limits<T>::infinity()) : nearest;
}

template <class T>
Tensor nms(const NmsArguments& given, double threshold, int64_t topk) {
  const int64_t count = given.boxes.size(0);
  const T *boxes = data_of<T>(given.boxes), limit = round_down<T>(threshold);
  const int64_t *order = data_of<int64_t>(given.order), *groups = data_of<int64_t>(given.groups);
  const MatchKernels<T>& kernel = match_kernels<T>();
  std::unordered_map<int64_t, Kept<T>> kept;
  std::vector<int64_t> found;
  for (int64_t n = 0; n < count && int64_t(found.size()) < topk; ++n) {
    const int64_t i = order[n];
    STD_TORCH_CHECK(0 <= i && i < count, "order must index the boxes");
    Kept<T>& group = kept[groups[i]];
    if (!kernel.overlaps(boxes + 4 * i, group.regions(), limit)) {
      group.add(boxes + 4 * i);
      found.push_back(i);
    }
  }
  const Tensor result = empty({int64_t(found.size())}, ScalarType::Long, false);
  std::copy(found.begin(), found.end(), mutable_data_of<int64_t>(result));
  return result;
}

Tensor nms_cpu(Tensor boxes, Tensor order, Tensor groups, double iou_threshold, int64_t topk) {
  const NmsArguments arguments(boxes, order, groups);
  return arguments.is_double() ? nms<double>(arguments, iou_threshold, topk)
                               : nms<float>(arguments, iou_threshold, topk);
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) { m.impl("nms", TORCH_BOX(&aligned_rcnn::nms_cpu)); }
