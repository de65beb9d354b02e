// Unit tests of impl/tensor/hooks.h, with libtorch's own backward.
#include "impl/tensor/hooks.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <string>
#include <thread>

namespace gradferry {
namespace {

at::Tensor Leaf() { return at::ones({2}).set_requires_grad(true); }

void Backward(const at::Tensor& root) { torch::autograd::backward({root.sum()}, {}); }

TensorHook Times(double factor) {
  return [factor](const at::Tensor& gradient) -> Result<at::Tensor> { return gradient * factor; };
}

// How many entries libtorch's list has.
size_t Entries(const at::Tensor& tensor) {
  return torch::autograd::impl::get_autograd_meta(tensor)->cpp_hooks_list_->size();
}

TEST(HooksTest, RegisteringAndRemovingAgainAndAgainDoesNotGrowLibtorchsList) {
  const at::Tensor leaf = Leaf();
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(RemoveHook(leaf, *AddHook(leaf, Times(2))).ok());
  EXPECT_EQ(Entries(leaf), 1u);
  Backward(leaf);
  EXPECT_EQ(leaf.grad()[0].item<float>(), 1);
}

TEST(HooksTest, OnesOfOthersStayWhereTheyAre) {
  const at::Tensor leaf = Leaf();
  std::string order;
  const auto note = [&](char c) {
    return [&order, c](const at::Tensor&) -> Result<at::Tensor> { return order += c, at::Tensor(); };
  };
  const auto a = AddHook(leaf, note('a'));
  leaf.register_hook([&](const at::Tensor&) { order += 'b'; });
  const auto c = AddHook(leaf, note('c'));
  ASSERT_TRUE(AddHook(leaf, note('d')).ok());
  leaf.register_hook([&](const at::Tensor&) { order += 'e'; });
  ASSERT_TRUE(AddHook(leaf, note('f')).ok());
  Backward(leaf);
  EXPECT_EQ(order, "abcdef");
  EXPECT_TRUE(RemoveHook(leaf, *a).ok());
  EXPECT_TRUE(RemoveHook(leaf, *c).ok());
  order.clear();
  Backward(leaf);
  EXPECT_EQ(order, "bdef");
}

TEST(HooksTest, AnErrorTravelsThroughLibtorchWhole) {
  const at::Tensor leaf = Leaf();
  ASSERT_TRUE(AddHook(leaf, [](const at::Tensor&) -> Result<at::Tensor> {
                return Status(Code::kOutOfRange, "too far").WithPeer("p");
              }).ok());
  try {
    Backward(leaf);
    FAIL() << "it was lost";
  } catch (...) {
    const Status status = StatusFromCurrentException();
    EXPECT_EQ(status.code(), Code::kOutOfRange);
    EXPECT_EQ(status.message(), "too far");
    EXPECT_EQ(status.error()->peer, "p");
  }
}

TEST(HooksTest, ReplacementsMustFit) {
  for (const at::Tensor& wrong : {at::ones({3}), at::ones({2}, at::kDouble), at::ones({1, 2})}) {
    const at::Tensor leaf = Leaf();
    ASSERT_TRUE(AddHook(leaf, [wrong](const at::Tensor&) -> Result<at::Tensor> { return wrong; }).ok());
    try {
      Backward(leaf);
      FAIL() << wrong.sizes();
    } catch (...) {
      EXPECT_EQ(StatusFromCurrentException().code(), Code::kInvalidArgument);
    }
  }
}

TEST(HooksTest, RetainHooksAreThereOnce) {
  const at::Tensor leaf = Leaf();
  int calls = 0;
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(
        AddRetainHook(leaf, [&](const at::Tensor&) -> Result<at::Tensor> { return ++calls, at::Tensor(); }).ok());
    leaf.register_hook([](const at::Tensor&) {});
  }
  Backward(leaf);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(AddRetainHook(at::ones({1}), Times(1)).code(), Code::kInvalidArgument);
  EXPECT_EQ(AddRetainHook(at::Tensor(), Times(1)).code(), Code::kInvalidArgument);
}

TEST(HooksTest, OneThatAHookBeforeItRemovedDoesNotRun) {
  const at::Tensor leaf = Leaf();
  uint64_t second = 0;
  int calls = 0;
  ASSERT_TRUE(AddHook(leaf, [&](const at::Tensor&) -> Result<at::Tensor> {
                EXPECT_TRUE(RemoveHook(leaf, second).ok());
                return at::Tensor();
              }).ok());
  second = *AddHook(leaf, [&](const at::Tensor&) -> Result<at::Tensor> { return ++calls, at::Tensor(); });
  Backward(leaf);
  EXPECT_EQ(calls, 0);
}

// Hooks come and go on other threads while backwards run, each of which sees all or nothing of one.
TEST(HooksTest, ComeAndGoWhileBackwardsRun) {
  const at::Tensor leaf = Leaf();
  std::atomic<int> kept{0}, others{0};
  ASSERT_TRUE(AddHook(leaf, [&](const at::Tensor&) -> Result<at::Tensor> { return ++kept, at::Tensor(); }).ok());
  std::atomic<bool> done{false};
  std::thread changes([&] {
    while (!done) {
      const auto id = AddHook(leaf, [&](const at::Tensor&) -> Result<at::Tensor> { return ++others, at::Tensor(); });
      EXPECT_TRUE(RemoveHook(leaf, *id).ok());
      EXPECT_EQ(RemoveHook(leaf, *id).code(), Code::kNotFound);
    }
  });
  for (int i = 0; i < 200; ++i) Backward(leaf);
  done = true;
  changes.join();
  EXPECT_EQ(kept, 200);
}

// A hook may free the last of the others, whose destruction may come back for more.
TEST(HooksTest, NothingIsDestroyedUnderALock) {
  const at::Tensor leaf = Leaf();
  const auto first = AddHook(leaf, Times(1));
  struct Removes {
    at::Tensor leaf;
    uint64_t id;
    ~Removes() { EXPECT_TRUE(RemoveHook(leaf, id).ok()); }
  };
  std::shared_ptr<Removes> removes(new Removes{leaf, *first});
  std::weak_ptr<Removes> watched = removes;
  const auto second = AddHook(leaf, [removes](const at::Tensor&) -> Result<at::Tensor> { return at::Tensor(); });
  removes.reset();
  EXPECT_TRUE(RemoveHook(leaf, *second).ok());
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(RemoveHook(leaf, *first).code(), Code::kNotFound);
}

}  // namespace
}  // namespace gradferry
