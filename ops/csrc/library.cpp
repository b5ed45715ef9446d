// The operators' schemas, for all devices.
//
// features: one tensor [N, C, H, W] per level; boxes: [K, 5]; levels: [K] (None: all on the first level); sizes: N, C,
// H, W of each level in turn; rule: see geometry.h.
#include <torch/csrc/stable/library.h>

#include <string>

#include "kernels.h"

namespace {
std::string cpu_variant() { return aligned_rcnn::variant_name(); }
// No constant, so that the file has it in one piece, where setup.py looks for it.
char digest[] = SOURCES;
std::string sources() { return digest; }
}  // namespace

STABLE_TORCH_LIBRARY(aligned_rcnn, m) {
  // The average over each bin's samples or cells: [K, C, PH, PW].
  m.def(
      "average(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> Tensor");
  m.def(
      "average_backward(Tensor grad, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, int sampling_ratio, "
      "str rule, bool channels_last) -> Tensor[]");
  // The same, each bin from its own channels: [K, C / (PH PW), PH, PW].
  m.def(
      "ps_average(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int "
      "pooled_width, "
      "int sampling_ratio, str rule) -> Tensor");
  m.def(
      "ps_average_backward(Tensor grad, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, "
      "int sampling_ratio, str rule, bool channels_last) -> Tensor[]");
  // The maximum, and the sample or cell that attains it (int32; see kernels.h).
  m.def(
      "maximum(Tensor[] features, Tensor boxes, Tensor? levels, float[] scales, int pooled_height, int pooled_width, "
      "int sampling_ratio, str rule) -> (Tensor, Tensor)");
  m.def(
      "maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Tensor? levels, SymInt[] sizes, float[] scales, "
      "int sampling_ratio, str rule, bool channels_last) -> Tensor[]");
  // The average over each bin's samples of a mask: [R, 1, PH, PW]. pixels: bool, of the windows [G, 4] of an image of
  // height x width, from `offsets` [G] on; boxes: [R, 4]; index: [R], the mask of each.
  m.def(
      "average_masks(Tensor pixels, Tensor windows, Tensor offsets, Tensor boxes, Tensor index, int height, int width, "
      "int pooled_height, int pooled_width, int sampling_ratio, str rule) -> Tensor");
  // Boxes [N, 4] matched with objects [G, 4], of which `crowd` [G] marks crowd regions. For each box: its highest IoU
  // with an object (-1 if there is none) and that object's index (int64; the first of equal ones), whether its IoU with
  // some object is the highest that any box has and positive (bool), and its largest share within a crowd region.
  m.def("match(Tensor boxes, Tensor objects, Tensor crowd) -> (Tensor, Tensor, Tensor, Tensor)");
  // Boxes ranked by the distance of their Gaussians (gaussian.h) [5, N] from those of objects [5, G], "wasserstein" or
  // "divergence". For each box: its least distance (infinite if there is none) and that object's index (int64; the
  // first of equal ones), and the nearest object among whose topk least distances its own is (int64; -1 if it is in
  // none).
  m.def("rank(Tensor boxes, Tensor objects, Tensor crowd, str distance, int topk) -> (Tensor, Tensor, Tensor)");
  // Indices of the boxes [N, 4] that no better one of the same group suppresses by an IoU above the threshold, at most
  // topk of them, best first; order: int64 [N], best first; groups: int64 [N].
  m.def("nms(Tensor boxes, Tensor order, Tensor groups, float iou_threshold, int topk) -> Tensor");
  // Maps [B, C, H, W] convolved by filters [K, C, 3, 3], plus a bias [K], by Winograd's algorithm (winograd.h); turned:
  // maps [B, K, H, W] by filters turned by half a turn, which is the gradient of the input.
  m.def("winograd_conv2d(Tensor maps, Tensor filters, Tensor? bias, bool turned) -> Tensor");
  // Its weight gradient [K, C, 3, 3], from maps [B, C, H, W] and the outputs' gradients [B, K, H, W].
  m.def("winograd_weight(Tensor maps, Tensor gradients) -> Tensor");
  m.def("cpu_variant() -> str");
  m.def("sources() -> str");  // the digest of those that this library is compiled from (compile.py)
}

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn, CompositeExplicitAutograd, m) {
  m.impl("cpu_variant", TORCH_BOX(&cpu_variant));
  m.impl("sources", TORCH_BOX(&sources));
}
