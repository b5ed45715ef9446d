// Runs kernels block by block on the host, and registers the CUDA operators for CPU tensors as aligned_rcnn_host, whose
// schemas the tests define.
#include <torch/csrc/stable/library.h>
#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/operators.h"
#include "cuda_runtime.h"

namespace {

constexpr size_t kStack = 64 << 10;

bool reversed = false;  // run the threads from the last to the first
std::unique_ptr<unsigned char, decltype(&std::free)> shared(nullptr, std::free);

enum class State { runs, waits, done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  State state;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
Fiber* running = nullptr;
const std::function<void()>* body = nullptr;

void start() {
  (*body)();
  running->state = State::done;
  swapcontext(&running->context, &scheduler);
}

dim3 thread_number(size_t i, dim3 threads) {
  const auto number = static_cast<unsigned>(i);
  return dim3(number % threads.x, number / threads.x % threads.y, number / (threads.x * threads.y));
}

void run_block(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    Fiber& fiber = fibers[i];
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
    fiber.state = State::runs;
  }
  for (size_t done = 0; done < count;) {
    done = 0;
    for (size_t n = 0; n < count; ++n) {
      const size_t i = reversed ? count - 1 - n : n;
      threadIdx = thread_number(i, blockDim);
      running = &fibers[i];
      if (running->state != State::done) {
        running->state = State::runs;
        swapcontext(&scheduler, &running->context);
      }
      done += running->state == State::done;
    }
    if (done > 0 && done < count) {
      throw std::runtime_error("some threads left the block while others wait at a barrier");
    }
  }
}

}  // namespace

void __syncthreads() {
  running->state = State::waits;
  swapcontext(&running->context, &scheduler);
}

namespace aligned_rcnn {

unsigned char* shared_memory() { return shared.get(); }

void clear(void* memory, size_t bytes, void*) { std::memset(memory, 0, bytes); }

void run_on_host(int64_t blocks, dim3 threads, size_t shared_size, const std::function<void()>& thread) {
  const size_t count = size_t(threads.x) * threads.y * threads.z;
  if (count == 0 || count > 1024 || blocks > INT32_MAX || shared_size > (48 << 10)) {
    throw std::runtime_error("a launch beyond CUDA's limits");
  }
  while (fibers.size() < count) {
    fibers.push_back({{}, std::make_unique<unsigned char[]>(kStack), State::done});
  }
  body = &thread;
  blockDim = threads;
  gridDim = dim3(static_cast<unsigned>(blocks));
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx = dim3(static_cast<unsigned>(block), 0, 0);
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, std::max<size_t>(shared_size, 1)) != 0) {
      throw std::bad_alloc();
    }
    shared.reset(static_cast<unsigned char*>(memory));
    std::memset(memory, 0xff, shared_size);
    run_block(count);
  }
}

namespace cuda {
void* stream_of(const Tensor&) { return nullptr; }
}  // namespace cuda

}  // namespace aligned_rcnn

extern "C" __attribute__((visibility("default"))) void aligned_rcnn_reverse_threads(int reverse) {
  reversed = reverse != 0;
}

STABLE_TORCH_LIBRARY_IMPL(aligned_rcnn_host, CPU, m) {
#define REGISTER(name) m.impl(#name, TORCH_BOX(&aligned_rcnn::cuda::name));
  ALIGNED_RCNN_CUDA_OPERATORS(REGISTER)
#undef REGISTER
}
