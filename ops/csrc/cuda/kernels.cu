// The kernels for features of one type: compiled once for each (ELEMENT names the one at hand).
#include "average.cuh"

namespace aligned_rcnn::cuda {

template struct Launches<ELEMENT>;

}  // namespace aligned_rcnn::cuda
