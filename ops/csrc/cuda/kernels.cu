// The kernels for one element type, ELEMENT; compiled once for each.
#include "average.cuh"
#include "average_backward.cuh"
#include "maximum.cuh"
#include "maximum_backward.cuh"

namespace aligned_rcnn::cuda {

template struct Launches<ELEMENT>;

}  // namespace aligned_rcnn::cuda
