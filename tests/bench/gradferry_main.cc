// Gradferry as a subject (subject.h), through the C ABI as a program uses it: synchronous calls with lists that are
// made once, direct handlers, operators.
//
//   gradferry_main driver|peer FOLDER [key=value]...       settings of the worker; in values {folder} and {role} are
//   filled in
#include <gradferry/gradferry.h>

#include <array>
#include <string>
#include <vector>

#include "tests/bench/subject.h"
#include "tests/support/c_abi/gf.h"

namespace gradferry::bench {
namespace {

using gf::Call;

// "{folder}" and "{role}" stand for what they say.
std::string Filled(std::string text, const std::string& folder, const std::string& role) {
  const std::pair<std::string, std::string> places[] = {{"{folder}", folder}, {"{role}", role}};
  for (const auto& [place, value] : places) {
    for (size_t at; (at = text.find(place)) != std::string::npos;) text.replace(at, place.size(), value);
  }
  return text;
}

gf::Worker Open(bool driver, const std::string& folder, const std::vector<std::string>& settings) {
  const gf::Config config = gf::NewConfig();
  gf::Set(config, "worker.name", driver ? "driver" : "peer");
  gf::Set(config, "group.rendezvous", "file://" + folder + "/group");
  gf::Set(config, "group.rank", driver ? "0" : "1");
  gf::Set(config, "group.world_size", "2");
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    gf::Set(config, setting.substr(0, equals), Filled(setting.substr(equals + 1), folder, driver ? "driver" : "peer"));
  }
  gf::Worker worker;
  Call(gf_worker_create, config, worker.out());
  return worker;
}

// A handler that answers at once with nothing.
void Empty(uintptr_t, gf_request* request) {
  gf_request_reply(request, nullptr, nullptr);
  gf_request_unref(request);
}

void HandleEmpty(gf_worker* worker) {
  gf_direct direct{};
  direct.struct_size = sizeof(direct);
  direct.flags = GF_DIRECT_INLINE;
  direct.handler = Empty;
  Call(gf_worker_handle_direct, worker, "empty", 5, &direct);
}

// A call that can be made again and again.
class Repeated {
 public:
  // name: of a handler, or of an operator as "aten::add.Tensor".
  Repeated(gf_worker* worker, const std::string& name, gf::List arguments)
      : worker_(worker), names_(gf::SplitOperator(name)), arguments_(std::move(arguments)) {
    call_.struct_size = sizeof(call_);
    call_.kind = name.find("::") == std::string::npos ? GF_CALL_HANDLER : GF_CALL_OPERATOR;
    call_.to = "peer";
    call_.to_length = 4;
    call_.name = names_.first.data();
    call_.name_length = names_.first.size();
    call_.overload = names_.second.data();
    call_.overload_length = names_.second.size();
    call_.arguments = arguments_;
  }
  Repeated(const Repeated&) = delete;

  // By default the results are dropped.
  void Run(gf_context* context = nullptr, gf_list** results = nullptr) {
    call_.context = context;
    gf::List dropped;
    Call(gf_call_sync, worker_, &call_, results == nullptr ? dropped.out() : results);
  }
  void Start(gf_queue* queue) {
    gf_call call = call_;
    call.queue = queue;
    Call(gf_call_start, worker_, &call, nullptr);
  }
  gf::Tensor Result(gf_context* context) {
    gf::List results;
    Run(context, results.out());
    return gf::TensorAt(results, 0);
  }

 private:
  gf_worker* const worker_;
  const std::pair<std::string, std::string> names_;
  const gf::List arguments_;
  gf_call call_{};
};

class Driver {
 public:
  explicit Driver(gf::Worker worker) : worker_(std::move(worker)) {}

  Measurements All() {
    Measurements all;
    all["empty"] = [this](int64_t count) { return Time(count, [this] { empty_.Run(); }); };
    all["add"] = [this](int64_t count) { return Time(count, [this] { add_.Run(); }); };
    all["add_context"] = [this](int64_t count) {
      const gf::Context context = gf::NewContext(worker_);
      const Samples samples = Time(count, [&] { add_leaf_.Run(context); });
      gf::Release(context);
      return samples;
    };
    all["step"] = [this](int64_t count) {
      return Time(count, [this] {
        const gf::Context context = gf::NewContext(worker_);
        gf::Backward(context, {gf::Sum(add_leaf_.Result(context))});
        gf::Release(context);
      });
    };
    all["chain"] = [this](int64_t count) { return Chain(count); };
    all["in_flight"] = [this](int64_t count) { return InFlight(count); };
    all["send_64mib"] = [this](int64_t count) { return Send(64 * kMiB, count); };
    all["send_256mib"] = [this](int64_t count) { return Send(256 * kMiB, count); };
    all["send_1gib"] = [this](int64_t count) { return Send(kGiB, count); };
    all["many_tensors"] = [this](int64_t count) { return ManyTensors(count); };
    all["busy"] = [this](int64_t count) { return Busy(count); };
    all["hold_1gib"] = [this](int64_t) { return Hold(kGiB); };
    all["free"] = [this](int64_t) { return Hold(0); };
    return all;
  }

 private:
  Samples Chain(int64_t count) {
    Samples samples;
    for (int64_t i = 0; i < count && !OutOfTime(); ++i) {
      const gf::Context context = gf::NewContext(worker_);
      gf::Tensor end = leaf_;
      for (int64_t j = 0; j < kChain; ++j) {
        end = Repeated(worker_, "aten::add.Tensor", gf::ListOf(end, plain_)).Result(context);
      }
      const gf::Tensor root = gf::Sum(end);
      const int64_t before = Now();
      gf::Backward(context, {root});
      samples.push_back(Now() - before);
      gf::Release(context);
    }
    return samples;
  }

  // A sample: the mean time for each call of a burst with kInFlight under way.
  Samples InFlight(int64_t count) {
    Samples samples = Time(count, [this] {
      int64_t started = 0, ended = 0;
      while (ended < kBurst) {
        for (; started < kBurst && started - ended < kInFlight; ++started) add_.Start(queue_);
        ended += Take();
      }
    });
    for (int64_t& burst : samples) burst /= kBurst;
    return samples;
  }

  // Completions that have come, at least one.
  int64_t Take() {
    std::array<gf_entry, kInFlight> entries{};
    size_t count = 0;
    Call(gf_queue_next, queue_, entries.data(), entries.size(), GF_NO_DEADLINE, &count);
    int32_t code = GF_OK;
    for (size_t i = 0; i < count; ++i) {
      if (entries[i].code != GF_OK) code = entries[i].code;
      gf_list_unref(entries[i].results);
      gf_error_unref(entries[i].error);
    }
    if (code != GF_OK) throw std::runtime_error(std::string("a call failed: ") + gf_code_name(code));
    return static_cast<int64_t>(count);
  }

  // Kept until another size is asked for.
  const gf::Tensor& Large(int64_t bytes) {
    if (large_bytes_ == bytes) return large_;
    large_.reset();
    large_ = gf::Op("aten::add.Scalar", gf::EmptyTensor({bytes / 4}, GF_DTYPE_FLOAT, 32), 1);
    large_bytes_ = bytes;
    return large_;
  }

  Samples Hold(int64_t bytes) {
    (void)Large(bytes);
    return {};
  }

  Samples Send(int64_t bytes, int64_t count) {
    Repeated send(worker_, "empty", gf::ListOf(Large(bytes)));
    return Time(count, [&] { send.Run(); });
  }

  Samples ManyTensors(int64_t count) {
    const gf::List tensors = gf::NewList();
    for (int64_t i = 0; i < kManyTensors; ++i) gf::Push(tensors, gf::Random({kManyTensorsFloats}, 1));
    Repeated send(worker_, "empty", gf::ListOf(tensors));
    return Time(count, [&] { send.Run(); });
  }

  // Calls while a tensor of 1 GiB is always on its way to the same peer.
  Samples Busy(int64_t count) {
    Repeated send(worker_, "empty", gf::ListOf(Large(kGiB)));
    send.Start(queue_);
    const Samples samples = Time(count, [&] {
      gf_entry entry{};
      size_t taken = 0;
      Call(gf_queue_next, queue_, &entry, size_t{1}, int64_t{0}, &taken);
      if (taken != 0) {
        gf_list_unref(entry.results);
        gf_error_unref(entry.error);
        send.Start(queue_);
      }
      add_.Run();
    });
    Take();
    return samples;
  }

  static gf::Queue NewQueue() {
    gf::Queue queue;
    Call(gf_queue_new, queue.out());
    return queue;
  }

  const gf::Worker worker_;
  const gf::Tensor plain_ = gf::Random({kFloats}, 1);
  const gf::Tensor leaf_ = gf::WithGrad(gf::Random({kFloats}, 2));
  Repeated empty_{worker_, "empty", gf::NewList()};
  Repeated add_{worker_, "aten::add.Tensor", gf::ListOf(plain_, plain_)};
  Repeated add_leaf_{worker_, "aten::add.Tensor", gf::ListOf(leaf_, plain_)};
  const gf::Queue queue_ = NewQueue();
  gf::Tensor large_;
  int64_t large_bytes_ = 0;
};

void Run(const std::vector<std::string>& arguments) {
  const bool driver = arguments.at(0) == "driver";
  const gf::Worker worker = Open(driver, arguments.at(1), {arguments.begin() + 2, arguments.end()});
  if (!driver) HandleEmpty(worker);
  Call(gf_worker_start, worker);
  if (!driver) Serve();
  Drive(Driver(worker).All());
}

}  // namespace
}  // namespace gradferry::bench

int main(int count, char** arguments) {
  return gradferry::bench::RunEnd([&] { gradferry::bench::Run({arguments + 1, arguments + count}); });
}
