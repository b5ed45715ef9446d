// The operators `match` and `nms`, on the CPU.
#include <cmath>
#include <limits>
#include <unordered_map>

#include "arguments.h"
#include "match.h"

namespace aligned_rcnn {
namespace {

constexpr int64_t kGroupsATask = 8;         // groups of kMatchedBoxes boxes that a thread takes at a time
constexpr int64_t kPairsAThread = 1 << 16;  // fewer boxes times objects do not pay for another thread

// Objects or crowd regions, coordinate by coordinate, with their places among all.
template <class T>
struct Columns {
  std::vector<T> x1, y1, x2, y2;
  std::vector<int64_t> index;

  Columns(const T* boxes, const bool* crowd, int64_t count, bool crowds) {
    for (int64_t i = 0; i < count; ++i) {
      if (crowd[i] == crowds) {
        x1.push_back(boxes[4 * i]);
        y1.push_back(boxes[4 * i + 1]);
        x2.push_back(boxes[4 * i + 2]);
        y2.push_back(boxes[4 * i + 3]);
        index.push_back(i);
      }
    }
  }

  Regions<T> regions() const {
    return {x1.data(), y1.data(), x2.data(), y2.data(), static_cast<int64_t>(index.size())};
  }
};

template <class T>
std::tuple<Tensor, Tensor, Tensor, Tensor> match(const MatchArguments& given) {
  const int64_t count = given.boxes.size(0), all = given.objects.size(0);
  const auto make = [&](ScalarType type) { return empty({count}, type, false); };
  const Tensor iou = make(Scalar<T>::type), index = make(ScalarType::Long), nearest = make(ScalarType::Bool),
               covered = make(Scalar<T>::type);
  const Columns<T> objects(data_of<T>(given.objects), data_of<bool>(given.crowd), all, false);
  const Columns<T> crowds(data_of<T>(given.objects), data_of<bool>(given.crowd), all, true);
  const MatchKernels<T>& kernel = match_kernels<T>();
  const auto group = [&](int64_t first, int32_t* object) {
    return MatchedBoxes<T>{data_of<T>(given.boxes) + 4 * first, std::min<int64_t>(kMatchedBoxes, count - first),
                           mutable_data_of<T>(iou) + first,     object,
                           mutable_data_of<T>(covered) + first, mutable_data_of<uint8_t>(nearest) + first};
  };
  const int64_t boxes_a_task = kGroupsATask * kMatchedBoxes, tasks = (count + boxes_a_task - 1) / boxes_a_task;
  const int64_t workers = std::min<int64_t>(
      {tasks, torch::stable::get_num_threads(), 1 + count * std::max<int64_t>(all, 1) / kPairsAThread});
  // Each worker has highest IoUs of its own; their maximum does not depend on who had which boxes.
  const size_t own = objects.index.size();
  std::vector<T> highest(own * std::max<int64_t>(workers, 1), T(0));
  const auto run = [&](const auto& visit) {
    parallel_workers(workers, tasks, [&](int64_t worker, int64_t task) {
      for (int64_t i = 0; i < kGroupsATask; ++i) {
        if (const int64_t first = task * boxes_a_task + i * kMatchedBoxes; first < count) {
          visit(worker, first);
        }
      }
    });
  };
  run([&](int64_t worker, int64_t first) {
    int32_t object[kMatchedBoxes];
    const MatchedBoxes<T> boxes = group(first, object);
    kernel.match(boxes, objects.regions(), crowds.regions(), highest.data() + worker * own);
    int64_t* to = mutable_data_of<int64_t>(index) + first;
    for (int64_t i = 0; i < boxes.count; ++i) {
      to[i] = own > 0 ? objects.index[object[i]] : 0;
    }
  });
  for (size_t i = own; i < highest.size(); ++i) {
    highest[i % own] = std::max(highest[i % own], highest[i]);
  }
  run([&](int64_t, int64_t first) { kernel.find_nearest(group(first, nullptr), objects.regions(), highest.data()); });
  return {iou, index, nearest, covered};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> match_cpu(Tensor boxes, Tensor objects, Tensor crowd) {
  const MatchArguments arguments(boxes, objects, crowd);
  return arguments.is_double() ? match<double>(arguments) : match<float>(arguments);
}

// ---- nms ----

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

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) {
  m.impl("match", TORCH_BOX(&aligned_rcnn::match_cpu));
  m.impl("nms", TORCH_BOX(&aligned_rcnn::nms_cpu));
}
