// The operators' schemas, for every device.
//
// features: one tensor [N, C, H, W] per level; boxes [K, 5]; levels [K] (None: all on the first); sizes: N, C, H, W of
// each level. See geometry.h for the rules.
#include <torch/csrc/stable/library.h>

#include <string>

#include "kernels.h"

namespace {
std::string cpu_variant() { return aligned_rcnn::variant_name(); }
}  // namespace

STABLE_TORCH_LIBRARY(aligned_rcnn, m) {
  // The average of what each bin looks at; [K, C, PH, PW].
  m.def(
      "average(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> Tensor");
  m.def(
      "average_backward(Tensor grad, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, int sampling_ratio, "
      "str rule, bool channels_last) -> Tensor[]");
  // The same, each bin from channels of its own; [K, C / (PH PW), PH, PW].
  m.def(
      "ps_average(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int "
      "pooled_width, "
      "int sampling_ratio, str rule) -> Tensor");
  m.def(
      "ps_average_backward(Tensor grad, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, "
      "int sampling_ratio, str rule, bool channels_last) -> Tensor[]");
  // The maximum, and where it was found.
  m.def(
      "maximum(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> (Tensor, Tensor)");
  m.def(
      "maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, "
      "int sampling_ratio, str rule, bool channels_last) -> Tensor[]");
  m.def("cpu_variant() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CompositeExplicitAutograd, m) {
  m.impl("cpu_variant", TORCH_BOX(&cpu_variant));
}
