// The CUDA operators: from tensors to launches. It needs no CUDA header, and the host does not wait for the device.
#include "operators.h"

#include "../mask_arguments.h"
#include "pyramid.h"

namespace aligned_rcnn::cuda {
namespace {

// The arguments of a forward operator, converted for the launches.
template <class S>
struct Inputs {
  using T = compute_t<S>;
  void* stream;
  Arguments<T> arguments;
  Tensors maps;  // channels last
  Pyramid pyramid;
  Query<T> query;

  Inputs(const Features& features, const Tensor& boxes, const Levels& levels, const Scales& scales,
         int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, const std::string& rule)
      : stream(stream_of(features.tensors[0])),
        arguments(boxes, levels, scales, features.levels.size(), pooled_height, pooled_width, sampling_ratio, rule),
        maps(channels_last_of(features.tensors, features.channels_last, sizeof(S), stream)),
        pyramid(pyramid_of<S>(maps, scales)),
        query(query_of(arguments.query)) {}
};

Features checked_features(const Tensors& features, const Tensor& boxes, const Levels& levels) {
  check_levels(features.size());
  for (const Tensor& feature : features) {
    check_device(feature, features[0], "features");
    check_device(boxes, features[0], "boxes");
    check_device(levels.value_or(boxes), features[0], "levels");
  }
  return Features(features);
}

// An output, written channels last and returned in the features' memory format.
struct Output {
  Tensor made, returned;
  bool channels_last;

  Output(const Features& features, ScalarType type, const Sizes& sizes)
      : made(empty_on(features.tensors[0], sizes, type, true)),
        returned(features.channels_last ? made : empty_on(features.tensors[0], sizes, type, false)),
        channels_last(features.channels_last) {}

  Tensor finish(int size, void* stream) const {
    if (!channels_last) {
      transpose_all({made}, {returned}, false, size, stream);
    }
    return returned;
  }
};

template <class S>
Tensor pool(const Features& features, const Tensor& boxes, const Levels& levels, const Scales& scales,
            int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, const std::string& rule,
            bool position_sensitive) {
  const Inputs<S> inputs(features, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const int64_t bins = pooled_height * pooled_width, channels = features.levels[0].channels;
  STD_TORCH_CHECK(!position_sensitive || channels % bins == 0, "channels must be a multiple of the number of bins");
  const int64_t pooled = position_sensitive ? channels / bins : channels;
  const Output output(features, features.type, {inputs.query.count, pooled, pooled_height, pooled_width});
  if (inputs.query.count * pooled > 0) {
    const auto launch = position_sensitive ? Launches<S>::ps_average : Launches<S>::average;
    launch(inputs.pyramid, inputs.query, mutable_data_of<S>(output.made), inputs.stream);
  }
  return output.finish(sizeof(S), inputs.stream);
}

template <class S>
std::tuple<Tensor, Tensor> maximum_of(const Features& features, const Tensor& boxes, const Levels& levels,
                                      const Scales& scales, int64_t pooled_height, int64_t pooled_width,
                                      int64_t sampling_ratio, const std::string& rule) {
  const Inputs<S> inputs(features, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  const Sizes sizes{inputs.query.count, features.levels[0].channels, pooled_height, pooled_width};
  const Output output(features, features.type, sizes), argmax(features, ScalarType::Int, sizes);
  if (sizes[0] * sizes[1] > 0) {
    Launches<S>::maximum(inputs.pyramid, inputs.query, mutable_data_of<S>(output.made),
                         mutable_data_of<int32_t>(argmax.made), inputs.stream);
  }
  return {output.finish(sizeof(S), inputs.stream), argmax.finish(sizeof(int32_t), inputs.stream)};
}

// Backward of any operator: allocates the gradients of all levels, channels last, which `launch` fills, and returns
// them in the features' memory format.
template <class S, class Launch>
Tensors gradients(const Tensor& grad, const Tensor& boxes, const Levels& levels, const Sizes& sizes,
                  const Scales& scales, int64_t sampling_ratio, const std::string& rule, bool channels_last,
                  const Launch& launch) {
  using T = compute_t<S>;
  const std::vector<Level> shapes = levels_of(sizes);
  check_levels(shapes.size());
  check_device(boxes, grad, "boxes");
  check_device(levels.value_or(boxes), grad, "levels");
  void* stream = stream_of(grad);
  const Arguments<T> arguments(boxes, levels, scales, shapes.size(), grad.size(2), grad.size(3), sampling_ratio, rule);
  Tensors made;
  for (const Level& shape : shapes) {
    made.push_back(empty_on(grad, {shape.images, shape.channels, shape.height, shape.width}, grad.scalar_type(), true));
  }
  const Pyramid pyramid = pyramid_of<S>(made, scales);
  const Query<T> query = query_of(arguments.query);
  Binning binning = plan_binning(pyramid, query.count);
  const Tensor touched = empty_on(grad, {binning.groups.total * binning.words}, ScalarType::Int);
  const Tensor extents =
      empty_on(grad, {query.count * static_cast<int64_t>(sizeof(Extent) / sizeof(int32_t))}, ScalarType::Int);
  binning.touched = mutable_data_of<uint32_t>(touched);
  binning.extents = mutable_data_of<Extent>(extents);
  launch(pyramid, query, binning, stream);
  if (channels_last) {
    return made;
  }
  Tensors results;
  for (const Level& shape : shapes) {
    const Sizes size{shape.images, shape.channels, shape.height, shape.width};
    results.push_back(empty_on(grad, size, grad.scalar_type(), false));
  }
  transpose_all(made, results, false, sizeof(S), stream);
  return results;
}

// An output's gradient, or its argmax, channels last.
Tensor pooled_gradient(const Tensor& given, const Tensor& boxes, int64_t channels) {
  return output_gradient(given, boxes, channels, true);
}

int64_t channels_of(const Sizes& sizes) { return levels_of(sizes)[0].channels; }

template <class T>
Matched matched(const MatchArguments& given) {
  const int64_t count = given.boxes.size(0), objects = given.objects.size(0);
  const auto make = [&](ScalarType type) { return empty_on(given.boxes, {count}, type); };
  const Tensor iou = make(Scalar<T>::type), index = make(ScalarType::Long), nearest = make(ScalarType::Bool),
               covered = make(Scalar<T>::type);
  const Tensor highest = empty_on(given.boxes, {objects}, Scalar<T>::type);
  const Matching<T> matching{data_of<T>(given.boxes),
                             count,
                             data_of<T>(given.objects),
                             data_of<bool>(given.crowd),
                             objects,
                             mutable_data_of<match_bits_t<T>>(highest),
                             mutable_data_of<T>(iou),
                             mutable_data_of<int64_t>(index),
                             mutable_data_of<bool>(nearest),
                             mutable_data_of<T>(covered)};
  match(matching, stream_of(given.boxes));
  return {iou, index, nearest, covered};
}

template <class T>
Ranked ranked(const RankArguments& given) {
  const int64_t count = given.boxes.size(1), objects = given.objects.size(1);
  const auto make = [&](int64_t length, ScalarType type) { return empty_on(given.boxes, {length}, type); };
  const Tensor distance = make(count, Scalar<T>::type), index = make(count, ScalarType::Long),
               within = make(count, ScalarType::Long);
  const Tensor next = make(objects, Scalar<T>::type), limit = make(objects, Scalar<T>::type),
               found = make(objects, ScalarType::Int), ranked_boxes = make(objects, ScalarType::Int);
  const Ranking<T> ranking{data_of<T>(given.boxes),
                           count,
                           data_of<T>(given.objects),
                           data_of<bool>(given.crowd),
                           objects,
                           static_cast<unsigned>(given.topk),
                           mutable_data_of<match_bits_t<T>>(next),
                           mutable_data_of<match_bits_t<T>>(limit),
                           mutable_data_of<unsigned>(found),
                           mutable_data_of<unsigned>(ranked_boxes),
                           mutable_data_of<T>(distance),
                           mutable_data_of<int64_t>(index),
                           mutable_data_of<int64_t>(within)};
  rank(ranking, given.distance, stream_of(given.boxes));
  return {distance, index, within};
}

template <class S>
bool aligned(const Pyramid& pyramid, const Tensor& grad) {
  return pyramid.aligned && at_16_bytes(grad.const_data_ptr());
}

}  // namespace

Tensor average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
               int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  const Features maps = checked_features(features, boxes, levels);
  return dispatch(maps.type, [&](auto type) {
    return pool<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule, false);
  });
}

Tensor ps_average(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                  int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  const Features maps = checked_features(features, boxes, levels);
  return dispatch(maps.type, [&](auto type) {
    return pool<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule, true);
  });
}

std::tuple<Tensor, Tensor> maximum(Tensors features, Tensor boxes, Levels levels, Scales scales, int64_t pooled_height,
                                   int64_t pooled_width, int64_t sampling_ratio, std::string rule) {
  const Features maps = checked_features(features, boxes, levels);
  return dispatch(maps.type, [&](auto type) {
    return maximum_of<decltype(type)>(maps, boxes, levels, scales, pooled_height, pooled_width, sampling_ratio, rule);
  });
}

Tensor average_masks(Tensor pixels, Tensor windows, Tensor offsets, Tensor boxes, Tensor index, int64_t height,
                     int64_t width, int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio,
                     std::string rule) {
  check_device(windows, pixels, "windows");
  check_device(offsets, pixels, "offsets");
  check_device(boxes, pixels, "boxes");
  check_device(index, pixels, "index");
  const MaskArguments arguments(pixels, windows, offsets, boxes, index, height, width, pooled_height, pooled_width,
                                sampling_ratio, rule);
  const Tensor output = empty_on(pixels, {arguments.query.count, 1, pooled_height, pooled_width}, ScalarType::Float);
  average_masks(arguments.query, mutable_data_of<float>(output), stream_of(pixels));
  return output;
}

Tensors average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales, int64_t sampling_ratio,
                         std::string rule, bool channels_last) {
  const Tensor from = pooled_gradient(grad, boxes, channels_of(sizes));
  return dispatch(grad.scalar_type(), [&](auto type) {
    using S = decltype(type);
    return gradients<S>(from, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last,
                        [&](Pyramid pyramid, const auto& query, const Binning& binning, void* stream) {
                          pyramid.aligned = aligned<S>(pyramid, from);
                          Launches<S>::average_backward(pyramid, query, binning, data_of<S>(from), stream);
                        });
  });
}

Tensors ps_average_backward(Tensor grad, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                            int64_t sampling_ratio, std::string rule, bool channels_last) {
  const int64_t channels = channels_of(sizes), bins = grad.dim() == 4 ? grad.size(2) * grad.size(3) : 1;
  STD_TORCH_CHECK(bins > 0 && channels % bins == 0, "channels must be a multiple of the number of bins");
  const Tensor from = pooled_gradient(grad, boxes, channels / bins);
  return dispatch(grad.scalar_type(), [&](auto type) {
    using S = decltype(type);
    return gradients<S>(from, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last,
                        [&](const Pyramid& pyramid, const auto& query, const Binning& binning, void* stream) {
                          Launches<S>::ps_average_backward(pyramid, query, binning, data_of<S>(from), stream);
                        });
  });
}

Tensors maximum_backward(Tensor grad, Tensor argmax, Tensor boxes, Levels levels, Sizes sizes, Scales scales,
                         int64_t sampling_ratio, std::string rule, bool channels_last) {
  check_device(argmax, grad, "argmax");
  const Tensor from = pooled_gradient(grad, boxes, channels_of(sizes));
  const Tensor places = pooled_gradient(argmax, boxes, channels_of(sizes));
  STD_TORCH_CHECK(
      places.scalar_type() == ScalarType::Int && places.size(2) == from.size(2) && places.size(3) == from.size(3),
      "argmax must be int32 and of the output's shape");
  return dispatch(grad.scalar_type(), [&](auto type) {
    using S = decltype(type);
    return gradients<S>(from, boxes, levels, sizes, scales, sampling_ratio, rule, channels_last,
                        [&](Pyramid pyramid, const auto& query, const Binning& binning, void* stream) {
                          pyramid.aligned = aligned<S>(pyramid, from) && at_16_bytes(places.const_data_ptr());
                          Launches<S>::maximum_backward(pyramid, query, binning, data_of<S>(from),
                                                        data_of<int32_t>(places), stream);
                        });
  });
}

Matched match(Tensor boxes, Tensor objects, Tensor crowd) {
  check_device(objects, boxes, "objects");
  check_device(crowd, boxes, "crowd");
  const MatchArguments arguments(boxes, objects, crowd);
  return arguments.is_double() ? matched<double>(arguments) : matched<float>(arguments);
}

Ranked rank(Tensor boxes, Tensor objects, Tensor crowd, std::string distance, int64_t topk) {
  check_device(objects, boxes, "objects");
  check_device(crowd, boxes, "crowd");
  const RankArguments arguments(boxes, objects, crowd, distance, topk);
  return arguments.is_double() ? ranked<double>(arguments) : ranked<float>(arguments);
}

}  // namespace aligned_rcnn::cuda
