// What tch does not pass on of libtorch 2.11, as functions of C.
//
// It is linked with libtorch_cpu and libc10 only. What it asks of a GPU goes through their interfaces, behind which
// libtorch_cuda registers itself when it is opened; without it there is no accelerator, and that is an error here.
//
// Every function returns null, or a message that `shim_free` frees.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/randn.h>
#include <c10/core/Event.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/profiler_kineto.h>

namespace {

template <typename Run>
char *guarded(Run run) noexcept {
  try {
    run();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("libtorch failed without a message");
  }
}

} // namespace

extern "C" {

void shim_free(char *message) { free(message); }

// Whether convolutions and products of matrices in f32 round their factors to TF32, on GPUs that have it.
char *shim_set_tf32(bool convolutions, bool products) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setAllowTF32CuDNN(convolutions);
    context.setAllowTF32CuBLAS(products);
  });
}

char *shim_tf32(bool *convolutions, bool *products) {
  return guarded([&] {
    auto &context = at::globalContext();
    *convolutions = context.allowTF32CuDNN(at::Float32Op::CONV);
    *products = context.float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) == at::Float32Precision::TF32;
  });
}

// Which kernels of attention may be chosen: FlashAttention, the memory-efficient one, plain products, cuDNN's.
char *shim_set_attention(bool flash, bool efficient, bool math, bool cudnn) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setSDPUseFlash(flash);
    context.setSDPUseMemEfficient(efficient);
    context.setSDPUseMath(math);
    context.setSDPUseCuDNN(cudnn);
  });
}

char *shim_attention(bool *kernels) {
  return guarded([&] {
    auto &context = at::globalContext();
    kernels[0] = context.userEnabledFlashSDP();
    kernels[1] = context.userEnabledMemEfficientSDP();
    kernels[2] = context.userEnabledMathSDP();
    kernels[3] = context.userEnabledCuDNNSDP();
  });
}

// Whether cuDNN measures its plans for each new shape, and how many of them.
char *shim_set_cudnn_benchmark(bool on, int32_t limit) {
  return guarded([&] {
    at::globalContext().setBenchmarkCuDNN(on);
    at::globalContext().setBenchmarkLimitCuDNN(limit);
  });
}

char *shim_cudnn_benchmark(bool *on, int32_t *limit) {
  return guarded([&] {
    *on = at::globalContext().benchmarkCuDNN();
    *limit = at::globalContext().benchmarkLimitCuDNN();
  });
}

// Bytes of this process on a GPU: allocated, its maximum, reserved, its maximum.
char *shim_statistics(int8_t device, int64_t *bytes) {
  return guarded([&] {
    const auto stats = at::accelerator::getDeviceStats(device);
    const auto &allocated = stats.allocated_bytes[0], &reserved = stats.reserved_bytes[0];
    bytes[0] = allocated.current;
    bytes[1] = allocated.peak;
    bytes[2] = reserved.current;
    bytes[3] = reserved.peak;
  });
}

// Makes the maxima what is in use now.
char *shim_reset_peaks(int8_t device) {
  return guarded([&] { at::accelerator::resetPeakStats(device); });
}

// Gives memory that is reserved and not allocated back to the GPU.
char *shim_release() {
  return guarded([] { at::accelerator::emptyCache(); });
}

// An event at the end of what a GPU has been given to do so far.
char *shim_event(int8_t device, c10::Event **event) {
  return guarded([&] {
    const auto type = at::accelerator::getAccelerator(true).value();
    // This flag and not that of PyTorch: with times.
    auto made = std::make_unique<c10::Event>(type, c10::EventFlag::BACKEND_DEFAULT);
    made->record(at::accelerator::getCurrentStream(device));
    *event = made.release();
  });
}

char *shim_event_wait(const c10::Event *event) {
  return guarded([&] { event->synchronize(); });
}

// The time from one event to another, both waited for, in milliseconds.
char *shim_event_elapsed(const c10::Event *from, const c10::Event *to, double *milliseconds) {
  return guarded([&] { *milliseconds = from->elapsedTime(*to); });
}

void shim_event_free(c10::Event *event) { delete event; }

// The gradients of `inputs`, from those of `outputs`.
char *shim_backward(const at::Tensor *const *outputs, const at::Tensor *const *gradients, size_t outputs_len,
                    const at::Tensor *const *inputs, size_t inputs_len, at::Tensor **results) {
  return guarded([&] {
    const auto list = [](const at::Tensor *const *tensors, size_t len) {
      torch::autograd::variable_list list;
      for (size_t i = 0; i < len; ++i) list.push_back(*tensors[i]);
      return list;
    };
    const auto found = torch::autograd::grad(list(outputs, outputs_len), list(inputs, inputs_len),
                                             list(gradients, outputs_len), false, false, false);
    for (size_t i = 0; i < inputs_len; ++i) results[i] = new at::Tensor(found[i]);
  });
}

// Normally distributed numbers in f32 on the CPU, of a generator of their own.
char *shim_randn(uint64_t seed, const int64_t *shape, size_t dimensions, at::Tensor **result) {
  return guarded([&] {
    const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    *result = new at::Tensor(at::randn(at::IntArrayRef(shape, dimensions), generator, at::TensorOptions(at::kFloat)));
  });
}

// Begins to record what is computed.
char *shim_profile_start() {
  return guarded([] {
    using torch::profiler::impl::ActivityType;
    std::set<ActivityType> activities{ActivityType::CPU};
    if (at::globalContext().hasCUDA()) activities.insert(ActivityType::CUDA);
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  });
}

// Ends it. Lines of seconds, calls and name: of kernels where there is CUDA, else of operations.
char *shim_profile_stop(char **lines) {
  return guarded([&] {
    TORCH_CHECK(torch::profiler::impl::profilerEnabled(), "nothing is recorded");
    const auto result = torch::autograd::profiler::disableProfiler();
    const auto device = at::globalContext().hasCUDA() ? c10::DeviceType::CUDA : c10::DeviceType::CPU;
    std::map<std::string, std::pair<double, int64_t>> sums;
    for (const auto &event : result->events()) {
      if (event.deviceType() != device) continue;
      auto &[seconds, count] = sums[event.name()];
      seconds += event.durationNs() / 1e9;
      ++count;
    }
    std::ostringstream text;
    for (const auto &[name, sum] : sums) text << sum.first << '\t' << sum.second << '\t' << name << '\n';
    *lines = strdup(text.str().c_str());
  });
}
}
