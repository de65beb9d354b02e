// The metrics of a worker: what they count, by API and by HTTP, and that whatever comes to the port does no harm.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/prometheus.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

Metrics MetricsOf(gf_worker* worker) {
  Metrics metrics = ParseMetrics(Text(gf_worker_metrics, worker));
  EXPECT_THAT(metrics.faults, IsEmpty());
  return metrics;
}

class MetricsTest : public TransportTest {};

TEST_P(MetricsTest, CallsAreCountedByPeerKindAndOutcome) {
  Group group(transport(), {"a", "b"});
  // Not one that is quick enough to run without the pool.
  for (int i = 0; i < 5; ++i) RemoteOp(group[0], "b", {}, "aten::sum", Floats({4}, {1, 2, 3, 4}));
  ErrorOf([&] { CallWorker(group[0], "b", "missing", NewList()); });
  const Tensor x = WithGrad(Floats({}, {3}));
  const Context context = NewContext(group[0]);
  Backward(context, {RemoteOp(group[0], "b", In(context), "aten::mul.Tensor", x, x)});

  const Metrics caller = MetricsOf(group[0]);
  EXPECT_EQ(caller.Sum("gradferry_calls_total", {{"peer", "b"}, {"kind", "operator"}, {"outcome", "OK"}}), 6);
  EXPECT_EQ(caller.Sum("gradferry_calls_total", {{"peer", "b"}, {"kind", "handler"}, {"outcome", "NOT_FOUND"}}), 1);
  EXPECT_EQ(caller.Sum("gradferry_call_duration_seconds_count", {{"kind", "operator"}}), 6);
  EXPECT_GT(caller.Sum("gradferry_call_duration_seconds_sum", {{"kind", "operator"}}), transport() == "sim" ? -1 : 0);
  EXPECT_EQ(caller.Sum("gradferry_calls_total", {{"kind", "mark"}}), 1);
  EXPECT_EQ(caller.Sum("gradferry_requests_total", {{"kind", "gradients"}}), 1);
  EXPECT_EQ(caller.Sum("gradferry_passes_total", {{"outcome", "OK"}}), 1);
  EXPECT_EQ(caller.Sum("gradferry_calls_in_flight"), 0);
  EXPECT_EQ(caller.Sum("gradferry_contexts"), 1);
  EXPECT_EQ(caller.Sum("gradferry_live_objects", {{"kind", "worker"}}), 2);
  EXPECT_EQ(caller.Sum("gradferry_reconnects_total"), 0);
  EXPECT_TRUE(caller.Has("gradferry_peer_info",
                         {{"peer", "b"}, {"state", "connected"}, {"transport", TransportOf(transport())}}));
  EXPECT_TRUE(caller.Has("gradferry_build_info", {{"worker", "a"}}));

  const Metrics callee = MetricsOf(group[1]);
  EXPECT_EQ(callee.Sum("gradferry_requests_total", {{"peer", "a"}, {"kind", "operator"}, {"outcome", "OK"}}), 6);
  EXPECT_EQ(callee.Sum("gradferry_requests_total", {{"peer", "a"}, {"kind", "handler"}, {"outcome", "NOT_FOUND"}}), 1);
  EXPECT_GE(callee.Sum("gradferry_pool_wait_seconds_count"), 5);

  // Both ends count the same bytes.
  for (const char* family : {"gradferry_frames_total", "gradferry_transferred_bytes_total"}) {
    EXPECT_GT(caller.Sum(family, {{"peer", "b"}, {"direction", "sent"}}), 5) << family;
    EXPECT_EQ(callee.Sum(family, {{"peer", "a"}, {"direction", "received"}}) <=
                  caller.Sum(family, {{"peer", "b"}, {"direction", "sent"}}),
              true)
        << family;
  }
}

TEST_P(MetricsTest, WhatWaitsIsSeen) {
  Group group(transport(), {"a", "b"}, {{"worker.threads", "1"}});
  group.server(1).On("hold", [&](const Request& request) {
    const Metrics metrics = MetricsOf(group[1]);
    EXPECT_EQ(metrics.Sum("gradferry_requests_in_flight"), 1);
    EXPECT_EQ(MetricsOf(group[0]).Sum("gradferry_calls_in_flight", {{"peer", "b"}}), 1);
    EXPECT_FALSE(gf_request_is_cancelled(request));
    return NewList();
  });
  CallWorker(group[0], "b", "hold", NewList());
  EXPECT_EQ(MetricsOf(group[0]).Sum("gradferry_calls_in_flight"), 0);
}

TEST_P(MetricsTest, ACancelledAndALateCallAreCountedAsSuch) {
  Group group(transport(), {"a", "b"});
  group.server(1).On("never", [](const Request& request) {
    while (gf_request_is_cancelled(request) == 0) usleep(1000);
    return NewList();
  });
  const Future call = StartCall(group[0], "b", "never", NewList());
  Call(gf_future_cancel, call);
  EXPECT_EQ(ErrorOf([&] { Await(call); }).code, GF_CANCELLED);
  EXPECT_EQ(
      ErrorOf([&] { CallWorker(group[0], "b", "never", NewList(), CallOptions().Deadline(5 * kMillisecond)); }).code,
      GF_DEADLINE_EXCEEDED);
  const Metrics metrics = MetricsOf(group[0]);
  EXPECT_EQ(metrics.Sum("gradferry_calls_total", {{"outcome", "CANCELLED"}}), 1);
  EXPECT_EQ(metrics.Sum("gradferry_calls_total", {{"outcome", "DEADLINE_EXCEEDED"}}), 1);
}

GF_OVER_ALL_WAYS(MetricsTest);

// ---- By HTTP -------------------------------------------------------------------------------------------------------

class MetricsPortTest : public LiveTest {
 protected:
  void SetUp() override {
    LiveTest::SetUp();
    worker_ = Open({{"metrics.listen", "127.0.0.1:0"}});
    address_ = Info(worker_)["metrics_address"];
  }
  void TearDown() override {
    if (worker_) Call(gf_worker_close, worker_, kPatience);
    worker_.reset();
    LiveTest::TearDown();
  }
  static Worker Open(const Settings& settings) {
    return OpenWorker(WorkerConfig("sim", UniqueName(), "served", 0, settings));
  }

  int Connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::stoi(address_.substr(address_.rfind(':') + 1))));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  static std::string ReadAll(int fd) {
    std::string answer;
    char bytes[4096];
    for (ssize_t count; (count = recv(fd, bytes, sizeof(bytes), 0)) > 0;) answer.append(bytes, count);
    return answer;
  }
  std::string Exchange(const std::string& request) const {
    const int fd = Connect();
    // The server may hang up before it has read all.
    (void)send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    std::string answer = ReadAll(fd);
    close(fd);
    return answer;
  }
  static std::string Get(const std::string& target) { return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n"; }

  Worker worker_;
  std::string address_;
};

TEST_F(MetricsPortTest, TheTextIsServed) {
  const std::string answer = Exchange(Get("/metrics"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  const std::string body = answer.substr(answer.find("\r\n\r\n") + 4);
  EXPECT_THAT(answer, HasSubstr("Content-Length: " + std::to_string(body.size()) + "\r\n"));
  const Metrics metrics = ParseMetrics(body);
  EXPECT_THAT(metrics.faults, IsEmpty());
  EXPECT_TRUE(metrics.Has("gradferry_worker_info", {{"worker", "served"}, {"state", "open"}}));
}

TEST_F(MetricsPortTest, NothingElseIsServed) {
  EXPECT_THAT(Exchange(Get("/")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Exchange(Get("/metricsx")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Exchange(Get("/metrics?x=1")), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Exchange("POST /metrics HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405"));
}

TEST_F(MetricsPortTest, WhateverComesTheNextOneIsServed) {
  EXPECT_THAT(Exchange("\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Exchange("GET\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Exchange(std::string(64, '\0') + "\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  Exchange(std::string(1 << 20, 'x'));
  std::vector<int> silent;
  for (int i = 0; i < 12; ++i) silent.push_back(Connect());
  const int half = Connect();
  EXPECT_EQ(send(half, "GET /met", 8, MSG_NOSIGNAL), 8);
  EXPECT_THAT(Exchange(Get("/metrics")), StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(send(half, "rics HTTP/1.1\r\n\r\n", 17, MSG_NOSIGNAL), 17);
  EXPECT_THAT(ReadAll(half), StartsWith("HTTP/1.1 200"));
  close(half);
  // Who never asks is sent away in time.
  for (int fd : silent) {
    EXPECT_EQ(ReadAll(fd), "");
    close(fd);
  }
}

TEST_F(MetricsPortTest, ClosingAWorkerEndsItsPort) {
  const int open = Connect();
  Call(gf_worker_close, worker_, kPatience);
  worker_.reset();
  EXPECT_EQ(ReadAll(open), "");
  close(open);
}

TEST_F(MetricsPortTest, AddressesAreChecked) {
  const auto error = [](const Settings& settings) { return ErrorOf([&] { Open(settings); }); };
  EXPECT_EQ(error({{"metrics.listen", "0.0.0.0:0"}}).code, GF_PERMISSION_DENIED);
  EXPECT_THAT(error({{"metrics.listen", "0.0.0.0:0"}}).message, HasSubstr("metrics.insecure"));
  for (const char* bad : {"localhost:0", "127.0.0.1", "127.0.0.1:70000", "127.0.0.1:", ":80", "[::1:80", "x"}) {
    EXPECT_EQ(error({{"metrics.listen", bad}}).code, GF_INVALID_ARGUMENT) << bad;
    EXPECT_THAT(error({{"metrics.listen", bad}}).message, HasSubstr("metrics.listen")) << bad;
  }
  EXPECT_EQ(error({{"metrics.listen", address_}}).code, GF_UNAVAILABLE);
  const Worker open = Open({{"metrics.listen", "0.0.0.0:0"}, {"metrics.insecure", "true"}});
  EXPECT_THAT(Info(open)["metrics_address"].get<std::string>(), StartsWith("0.0.0.0:"));
  Call(gf_worker_close, open, kPatience);
}

}  // namespace
}  // namespace gf
