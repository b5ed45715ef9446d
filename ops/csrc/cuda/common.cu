// The parts that do not depend on the features' element type.
#include "masks.cuh"
#include "match.cuh"
#include "rank.cuh"
#include "transpose.cuh"

namespace aligned_rcnn::cuda {

Tiles make_tiles(const Pyramid& pyramid, int shift) {
  const int64_t side = static_cast<int64_t>(kTile) << shift;
  Tiles tiles{};
  for (int i = 0; i < pyramid.count; ++i) {
    const LevelMap& level = pyramid.levels[i];
    tiles.first[i] = tiles.total;
    tiles.rows[i] = static_cast<int>(divide_up(level.height, side));
    tiles.columns[i] = static_cast<int>(divide_up(level.width, side));
    tiles.total += level.images * tiles.rows[i] * tiles.columns[i];
  }
  return tiles;
}

Binning plan_binning(const Pyramid& pyramid, int64_t rois) {
  constexpr int kWidestShift = 28;  // at most one group per map
  Binning binning{0, make_tiles(pyramid, 0), divide_up(rois, 32), nullptr, nullptr};
  while (binning.shift < kWidestShift &&
         binning.groups.total * binning.words * static_cast<int64_t>(sizeof(uint32_t)) > ALIGNED_RCNN_BINNING_BYTES) {
    binning.groups = make_tiles(pyramid, ++binning.shift);
  }
  return binning;
}

void average_masks(const MaskQuery& query, float* out, void* stream) {
  const int64_t bins = query.count * query.pooled_height * query.pooled_width;
  const int64_t blocks = divide_up(bins, kMaskThreads);
  launch(masks_kernel, blocks < kMaxBlocks ? blocks : kMaxBlocks, dim3(kMaskThreads), 0, stream, query, bins, out);
}

}  // namespace aligned_rcnn::cuda
