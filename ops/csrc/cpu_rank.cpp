// The operator `rank`, on the CPU.
#include <limits>

#include "arguments.h"
#include "rank.h"

namespace aligned_rcnn {
namespace {

constexpr int64_t kGroupsATask = 8;         // groups of kRankedBoxes boxes that a thread takes at a time
constexpr int64_t kPairsAThread = 1 << 16;  // fewer boxes times objects do not pay for another thread

// The Gaussians of the objects that are no crowd regions, and their places among all.
template <class T>
struct Objects {
  std::vector<T> rows;
  std::vector<int64_t> index;

  explicit Objects(const RankArguments& given) {
    const int64_t all = given.objects.size(1);
    for (int64_t i = 0; i < all; ++i) {
      if (!data_of<bool>(given.crowd)[i]) {
        index.push_back(i);
      }
    }
    for (int row = 0; row < kGaussianRows; ++row) {
      for (const int64_t i : index) {
        rows.push_back(data_of<T>(given.objects)[row * all + i]);
      }
    }
  }

  int64_t count() const { return static_cast<int64_t>(index.size()); }
  Gaussians<T> gaussians() const { return {rows.data(), count(), count()}; }
};

template <class T>
std::tuple<Tensor, Tensor, Tensor> rank(const RankArguments& given) {
  const int64_t count = given.boxes.size(1), topk = given.topk;
  const auto make = [&](ScalarType type) { return empty({count}, type, false); };
  const Tensor distance = make(Scalar<T>::type), index = make(ScalarType::Long), ranked = make(ScalarType::Long);
  const Objects<T> objects(given);
  const RankKernels<T>& kernel = rank_kernels<T>();
  const int measure = static_cast<int>(given.distance);
  const int64_t own = objects.count();
  const int64_t boxes_a_task = kGroupsATask * kRankedBoxes, tasks = (count + boxes_a_task - 1) / boxes_a_task;
  const int64_t workers = std::min<int64_t>(
      {tasks, torch::stable::get_num_threads(), 1 + count * std::max<int64_t>(own, 1) / kPairsAThread});
  // Each worker has least distances of its own; the least of all do not depend on who had which boxes.
  std::vector<T> nearest(own * topk * std::max<int64_t>(workers, 1), std::numeric_limits<T>::infinity());
  // Runs visit(worker, boxes), and writes the places of the objects that it finds into `to`.
  const auto run = [&](const Tensor& to, const auto& visit) {
    parallel_workers(workers, tasks, [&](int64_t worker, int64_t task) {
      for (int64_t i = 0; i < kGroupsATask; ++i) {
        const int64_t first = task * boxes_a_task + i * kRankedBoxes;
        if (first >= count) {
          break;
        }
        int32_t place[kRankedBoxes];
        const int64_t some = std::min<int64_t>(kRankedBoxes, count - first);
        visit(worker,
              RankedBoxes<T>{
                  {data_of<T>(given.boxes) + first, count, some}, mutable_data_of<T>(distance) + first, place, place});
        for (int64_t n = 0; n < some; ++n) {
          mutable_data_of<int64_t>(to)[first + n] = place[n] < 0 ? -1 : own > 0 ? objects.index[place[n]] : 0;
        }
      }
    });
  };
  run(index, [&](int64_t worker, const RankedBoxes<T>& boxes) {
    kernel.find[measure](boxes, objects.gaussians(), nearest.data() + worker * own * topk, int(topk));
  });
  std::vector<T> limit(own), all(std::max<int64_t>(workers, 1) * topk);
  for (int64_t i = 0; i < own; ++i) {
    for (int64_t worker = 0; worker < workers; ++worker) {
      std::copy_n(nearest.data() + (worker * own + i) * topk, topk, all.data() + worker * topk);
    }
    std::nth_element(all.begin(), all.begin() + topk - 1, all.end());
    limit[i] = all[topk - 1];
  }
  run(ranked,
      [&](int64_t, const RankedBoxes<T>& boxes) { kernel.assign[measure](boxes, objects.gaussians(), limit.data()); });
  return {distance, index, ranked};
}

std::tuple<Tensor, Tensor, Tensor> rank_cpu(Tensor boxes, Tensor objects, Tensor crowd, std::string distance,
                                            int64_t topk) {
  const RankArguments arguments(boxes, objects, crowd, distance, topk);
  return arguments.is_double() ? rank<double>(arguments) : rank<float>(arguments);
}

}  // namespace
}  // namespace aligned_rcnn

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CPU, m) { m.impl("rank", TORCH_BOX(&aligned_rcnn::rank_cpu)); }
