// What a thread sends while it hands over frames is gathered: that changes neither the order nor who waits for whom.
#include <functional>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

class GatherTest : public ConnectedTest {
 protected:
  // Not for the first frame, which may still be on its way to a hook.
  void OnQuestion(std::function<void(Peer&)> answer) {
    server_.Set(accepted_->on_frame, [this, answer = std::move(answer)](Peer& peer) {
      if (server_.Locked([&] { return peer.frames.back().header; }) == "question") answer(peer);
    });
  }
  std::vector<std::string> Headers() {
    return host_.Locked([&] {
      std::vector<std::string> headers;
      for (const Frame& frame : client_->frames) headers.push_back(frame.header);
      return headers;
    });
  }
};

TEST_P(GatherTest, SmallAndLargeComeInTheOrderOfSending) {
  std::vector<std::string> sent;
  OnQuestion([&](Peer& peer) {
    for (const size_t bytes : {10, 100000, 0, 3000000, 20}) {
      sent.push_back(std::to_string(sent.size()));
      ASSERT_EQ(server_.Send(&peer, {sent.back(), {Bytes(bytes, 1)}}).code, GF_OK);
    }
  });
  for (int i = 0; i < 20; ++i) ASSERT_EQ(host_.Send(client_, {"question", {}}).code, GF_OK);
  ASSERT_TRUE(host_.WaitFrames(client_, 100));
  EXPECT_EQ(Headers(), sent);
  EXPECT_TRUE(server_.WaitSent(accepted_, 100));
}

TEST_P(GatherTest, ByAnotherConnectionToo) {
  Peer* other = host_.Connect(server_.address());
  ASSERT_EQ(host_.Send(other, {"hello", {}}).code, GF_OK);
  Peer* accepted = server_.Accepted(1);
  ASSERT_TRUE(server_.WaitFrames(accepted, 1));
  OnQuestion([&](Peer&) { server_.Send(accepted, {"answer", {}}); });
  for (int i = 0; i < 100; ++i) ASSERT_EQ(host_.Send(client_, {"question", {}}).code, GF_OK);
  EXPECT_TRUE(host_.WaitFrames(other, 100));
  EXPECT_TRUE(server_.WaitSent(accepted, 100));
}

// A handler takes its time; who sends meanwhile does not wait for its end, nor what was gathered before it.
TEST_P(GatherTest, AnotherThreadTakesWhatIsGatheredAlong) {
  std::promise<bool> came;
  OnQuestion([&](Peer& peer) {
    ASSERT_EQ(server_.Send(&peer, {"gathered", {}}).code, GF_OK);
    std::thread([&] { ASSERT_EQ(server_.Send(&peer, {"at once", {}}).code, GF_OK); }).join();
    came.set_value(host_.WaitFrames(client_, 2));
  });
  ASSERT_EQ(host_.Send(client_, {"question", {}}).code, GF_OK);
  EXPECT_TRUE(came.get_future().get());
  EXPECT_EQ(Headers(), (std::vector<std::string>{"gathered", "at once"}));
}

TEST_P(GatherTest, AConnectionThatIsClosedMeanwhileTellsWhatWasNotSent) {
  OnQuestion([&](Peer& peer) {
    ASSERT_EQ(server_.Send(&peer, {"gathered", {}}).code, GF_OK);
    server_.Close(&peer);
  });
  ASSERT_EQ(host_.Send(client_, {"question", {}}).code, GF_OK);
  EXPECT_TRUE(server_.WaitClosed(accepted_));
  EXPECT_TRUE(server_.WaitSent(accepted_, 1));
}

INSTANTIATE_TEST_SUITE_P(Over, GatherTest, ::testing::Values("{}", kTcp),
                         [](const auto& info) { return info.index == 0 ? "unix" : "tcp"; });

}  // namespace
}  // namespace gradferry::thrift::testing
