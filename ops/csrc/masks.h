// Masks that are stored over windows of their image, shared by host and device.
#pragma once

#include "geometry.h"

namespace aligned_rcnn {

// The arguments of `average_masks`, for one image; pointers are to the device's memory.
struct MaskQuery {
  const uint8_t* pixels;   // of all windows, 0 or 1
  int64_t size;            // number of pixels
  const int64_t* windows;  // [masks, 4]: x1, y1, x2, y2
  const int64_t* offsets;  // [masks]: the first pixel of each window; its rows follow one another
  int64_t masks;
  const float* boxes;    // [count, 4]: x1, y1, x2, y2
  const int64_t* index;  // [count]: the mask of each box
  int64_t count;
  Rule rule;
  int height, width;  // of the image
  int pooled_height, pooled_width, sampling_ratio;
};

struct MaskWindow {
  const uint8_t* pixels;
  int64_t x1, y1, x2, y2;  // empty if there is no such mask
};

HOST_DEVICE MaskWindow window_of(const MaskQuery& query, int64_t mask) {
  if (mask < 0 || mask >= query.masks) {
    return {nullptr, 0, 0, 0, 0};
  }
  const int64_t* edges = query.windows + mask * 4;
  const MaskWindow window{query.pixels + query.offsets[mask], edges[0], edges[1], edges[2], edges[3]};
  const bool within = window.x1 >= 0 && window.y1 >= 0 && window.x1 <= window.x2 && window.y1 <= window.y2 &&
                      window.x2 <= query.width && window.y2 <= query.height && query.offsets[mask] >= 0 &&
                      query.offsets[mask] + (window.x2 - window.x1) * (window.y2 - window.y1) <= query.size;
  return within ? window : MaskWindow{nullptr, 0, 0, 0, 0};
}

// The axes of a box, in the image's pixels.
HOST_DEVICE Axis<float> row_axis(const MaskQuery& query, int64_t k) {
  return make_axis<float>(query.rule, query.boxes[k * 4 + 1], query.boxes[k * 4 + 3], 1.0f, query.pooled_height,
                          query.sampling_ratio, query.height);
}
HOST_DEVICE Axis<float> column_axis(const MaskQuery& query, int64_t k) {
  return make_axis<float>(query.rule, query.boxes[k * 4], query.boxes[k * 4 + 2], 1.0f, query.pooled_width,
                          query.sampling_ratio, query.width);
}

}  // namespace aligned_rcnn
