// Registers the CUDA operators. Only this file needs a device, so that the tests can run the others on the host.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include "operators.h"

namespace aligned_rcnn::cuda {

void* stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

namespace {

const Tensor& first(const Tensor& tensor) { return tensor; }
const Tensor& first(const std::vector<Tensor>& tensors) {
  STD_TORCH_CHECK(!tensors.empty(), "features must not be empty");
  return tensors[0];
}

// Runs an operator with the device of its first argument as the current one.
template <auto Operator>
struct OnDevice;
template <class Result, class First, class... Rest, Result (*Operator)(First, Rest...)>
struct OnDevice<Operator> {
  static Result run(First argument, Rest... rest) {
    const torch::stable::accelerator::DeviceGuard guard(first(argument).get_device_index());
    return Operator(std::move(argument), std::move(rest)...);
  }
};

}  // namespace
}  // namespace aligned_rcnn::cuda

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CUDA, m) {
#define REGISTER(name) m.impl(#name, TORCH_BOX(&aligned_rcnn::cuda::OnDevice<&aligned_rcnn::cuda::name>::run));
  ALIGNED_RCNN_CUDA_OPERATORS(REGISTER)
#undef REGISTER
}
