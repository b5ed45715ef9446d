// The kernels for features of one type: compiled once for each (ELEMENT names the one at hand).
#include "average.cuh"
#include "average_backward.cuh"
#include "maximum.cuh"
#include "maximum_backward.cuh"

namespace aligned_rcnn::cuda {

template struct Launches<ELEMENT>;

}  // namespace aligned_rcnn::cuda
