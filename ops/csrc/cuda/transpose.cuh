// Transposes matrices through squares in shared memory: NCHW to channels last and back, all levels in one launch.
#pragma once

#include "device.cuh"
#include "launches.h"

namespace aligned_rcnn::cuda {

constexpr int kSquare = 32;

struct Transposition {
  int count;
  int64_t squares;                               // in total
  int64_t first[kMaxLevels];                     // number of the first square
  int64_t down[kMaxLevels], across[kMaxLevels];  // squares of one matrix
  Matrices matrices[kMaxLevels];
};

template <class E>
__global__ void __launch_bounds__(256) transpose_kernel(const Transposition work) {
  E* square = reinterpret_cast<E*>(shared_memory());  // padded by one element per row, against bank conflicts
  constexpr int kPitch = kSquare + 1;
  for (int64_t item = blockIdx.x; item < work.squares; item += gridDim.x) {
    int m = 0;
    while (m + 1 < work.count && item >= work.first[m + 1]) {
      ++m;
    }
    const Matrices& matrices = work.matrices[m];
    const int64_t rows = matrices.rows, columns = matrices.columns;
    const int64_t of_matrix = work.down[m] * work.across[m], here = item - work.first[m];
    const int64_t offset = here / of_matrix * rows * columns;
    const int64_t row = here % of_matrix / work.across[m] * kSquare, column = here % work.across[m] * kSquare;
    const E* from = static_cast<const E*>(matrices.from) + offset;
    E* to = static_cast<E*>(matrices.to) + offset;
    for (int i = threadIdx.y; i < kSquare; i += blockDim.y) {
      if (row + i < rows && column + threadIdx.x < columns) {
        square[i * kPitch + threadIdx.x] = from[(row + i) * columns + column + threadIdx.x];
      }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < kSquare; i += blockDim.y) {
      if (column + i < columns && row + threadIdx.x < rows) {
        to[(column + i) * rows + row + threadIdx.x] = square[threadIdx.x * kPitch + i];
      }
    }
    __syncthreads();
  }
}

void transpose(const Matrices* matrices, int count, int size, void* stream) {
  Transposition work{};
  for (int m = 0; m < count; ++m) {
    if (matrices[m].count * matrices[m].rows * matrices[m].columns > 0) {
      const int i = work.count++;
      work.matrices[i] = matrices[m];
      work.down[i] = divide_up(matrices[m].rows, kSquare);
      work.across[i] = divide_up(matrices[m].columns, kSquare);
      work.first[i] = work.squares;
      work.squares += matrices[m].count * work.down[i] * work.across[i];
    }
  }
  const int64_t blocks = work.squares < kMaxBlocks ? work.squares : kMaxBlocks;
  const size_t shared = kSquare * (kSquare + 1) * size;
  const dim3 threads(kSquare, 8);
  if (size == 2) {
    launch(transpose_kernel<uint16_t>, blocks, threads, shared, stream, work);
  } else if (size == 4) {
    launch(transpose_kernel<uint32_t>, blocks, threads, shared, stream, work);
  } else {
    launch(transpose_kernel<uint64_t>, blocks, threads, shared, stream, work);
  }
}

}  // namespace aligned_rcnn::cuda
