// TensorPipe without anything above it, as a subject (subject.h): an echo of a message that is 64 bytes of metadata,
// and a tensor of large data with such an answer. The channel is cma.
//
//   pipe_main driver|peer FOLDER uv|shm
#include <tensorpipe/tensorpipe.h>

#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/bench/stream.h"
#include "tests/bench/subject.h"

namespace gradferry::bench {
namespace {

namespace tp = tensorpipe;

std::shared_ptr<tp::Context> NewContext(const std::string& transport) {
  auto context = std::make_shared<tp::Context>();
  if (transport == "shm") {
    context->registerTransport(1, "shm", tp::transport::shm::create());
  } else {
    context->registerTransport(0, "uv", tp::transport::uv::create());
  }
  context->registerChannel(1, "cma", tp::channel::cma::create());
  context->registerChannel(0, "basic", tp::channel::basic::create());
  return context;
}

// Blocking versions, for one thread that waits.
class Pipe {
 public:
  explicit Pipe(std::shared_ptr<tp::Pipe> pipe) : pipe_(std::move(pipe)) {}

  void Write(void* tensor, size_t size) {
    tp::Message message;
    message.metadata = std::string(64, 'm');
    if (size != 0) {
      message.tensors.push_back({tp::Buffer(tp::CpuBuffer{tensor}), size, tp::Device(tp::kCpuDeviceType, 0), ""});
    }
    // Its end is known when the answer comes.
    pipe_->write(std::move(message), [](const tp::Error&) {});
  }

  // Reads a message; its tensor, if it has one, into this memory, which is made to fit.
  void Read(std::vector<char>* memory) {
    // Kept by whoever sets it, too.
    const auto done = std::make_shared<std::promise<void>>();
    pipe_->readDescriptor([=](const tp::Error& error, tp::Descriptor descriptor) {
      if (error) return done->set_exception(std::make_exception_ptr(std::runtime_error(error.what())));
      tp::Allocation allocation;
      if (!descriptor.tensors.empty()) {
        if (memory->size() < descriptor.tensors[0].length) memory->resize(descriptor.tensors[0].length);
        allocation.tensors.push_back({tp::Buffer(tp::CpuBuffer{memory->data()})});
      }
      pipe_->read(std::move(allocation), [done](const tp::Error& error) {
        if (error) return done->set_exception(std::make_exception_ptr(std::runtime_error(error.what())));
        done->set_value();
      });
    });
    done->get_future().get();
  }

 private:
  const std::shared_ptr<tp::Pipe> pipe_;
};

// Answers within the callbacks, as the fastest server would.
class Echo {
 public:
  explicit Echo(std::shared_ptr<tp::Pipe> pipe) : pipe_(std::move(pipe)) {}

  void Next() {
    pipe_->readDescriptor([this](const tp::Error& error, tp::Descriptor descriptor) {
      if (error) return;
      tp::Allocation allocation;
      if (!descriptor.tensors.empty()) {
        if (memory_.size() < descriptor.tensors[0].length) memory_.resize(descriptor.tensors[0].length);
        allocation.tensors.push_back({tp::Buffer(tp::CpuBuffer{memory_.data()})});
      }
      pipe_->read(std::move(allocation), [this](const tp::Error& error) {
        if (error) return;
        Next();
        tp::Message message;
        message.metadata = std::string(64, 'm');
        pipe_->write(std::move(message), [](const tp::Error&) {});
      });
    });
  }

 private:
  const std::shared_ptr<tp::Pipe> pipe_;
  std::vector<char> memory_;
};

[[noreturn]] void RunPeer(const std::string& folder, const std::string& transport) {
  const auto context = NewContext(transport);
  const auto listener = context->listen({transport == "shm" ? "shm://" : "uv://127.0.0.1:0"});
  std::unique_ptr<Echo> echo;
  listener->accept([&](const tp::Error& error, std::shared_ptr<tp::Pipe> pipe) {
    if (error) return;
    echo = std::make_unique<Echo>(std::move(pipe));
    echo->Next();
  });
  Publish(folder, listener->url(transport));
  Serve();
}

[[noreturn]] void RunDriver(const std::string& folder, const std::string& transport) {
  const auto context = NewContext(transport);
  Pipe pipe(context->connect(AwaitPublished(folder)));
  std::vector<char> buffer, answer;
  const auto ask = [&](size_t size) {
    pipe.Write(buffer.data(), size);
    pipe.Read(&answer);
  };
  const auto send = [&](int64_t bytes, int64_t count) {
    const auto size = static_cast<size_t>(bytes);
    if (buffer.size() < size) buffer.assign(size, 1);
    return Time(count, [&] { ask(size); });
  };
  Measurements all;
  all["echo"] = [&](int64_t count) { return Time(count, [&] { ask(0); }); };
  all["send_64mib"] = [&](int64_t count) { return send(64 * kMiB, count); };
  all["send_256mib"] = [&](int64_t count) { return send(256 * kMiB, count); };
  Drive(all);
}

void Run(const std::vector<std::string>& arguments) {
  if (arguments.at(0) == "driver") RunDriver(arguments.at(1), arguments.at(2));
  RunPeer(arguments.at(1), arguments.at(2));
}

}  // namespace
}  // namespace gradferry::bench

int main(int count, char** arguments) {
  return gradferry::bench::RunEnd([&] { gradferry::bench::Run({arguments + 1, arguments + count}); });
}
