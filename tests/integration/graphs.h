// What the graph of a call looks like from each of its sides, for tests in one process and in several.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace gf {

inline constexpr char kLeaf[] = "torch::autograd::AccumulateGrad";
inline constexpr char kAdd[] = "AddBackward0";
inline constexpr char kRecv[] = "RecvRpcBackward";

inline const nlohmann::json& NodeOf(const nlohmann::json& context, const nlohmann::json& edge) {
  return context["nodes"].at(edge[0].get<size_t>());
}

inline std::string NodeName(const nlohmann::json& context, const nlohmann::json& edge) {
  return NodeOf(context, edge)["name"];
}

// The edges lead to outputs 0, 1, ... of one recv function.
inline void ExpectOutputsOfOneRecv(const nlohmann::json& context, const nlohmann::json& edges, size_t count) {
  ASSERT_EQ(edges.size(), count);
  for (size_t i = 0; i < count; ++i) {
    EXPECT_EQ(NodeName(context, edges[i]), kRecv);
    EXPECT_EQ(edges[i][0], edges[0][0]);
    EXPECT_EQ(edges[i][1], i);
  }
}

// The edges lead to leaves, each to another one.
inline void ExpectLeaves(const nlohmann::json& context, const nlohmann::json& edges, size_t count) {
  ASSERT_EQ(edges.size(), count);
  std::set<int> seen;
  for (const auto& edge : edges) {
    EXPECT_EQ(NodeName(context, edge), kLeaf);
    seen.insert(edge[0].get<int>());
  }
  EXPECT_EQ(seen.size(), count);
}

// The edge leads to an addition of both outputs of one recv function.
inline void ExpectSumOfRecv(const nlohmann::json& context, const nlohmann::json& edges) {
  ASSERT_EQ(edges.size(), 1u);
  ASSERT_EQ(NodeName(context, edges[0]), kAdd);
  ExpectOutputsOfOneRecv(context, NodeOf(context, edges[0])["next"], 2);
}

// Where a call of a sum of two leaves was made: one send function to them, one recv function for the sum.
inline void ExpectCallerGraph(const nlohmann::json& context, int callee) {
  SCOPED_TRACE("caller: " + context.dump());
  ASSERT_EQ(context["send_functions"].size(), 1u);
  EXPECT_EQ(context["send_functions"][0]["to"], callee);
  ExpectLeaves(context, context["send_functions"][0]["next"], 2);
  ASSERT_EQ(context["recv_functions"].size(), 1u);
  EXPECT_EQ(context["recv_functions"][0]["from"], callee);
  EXPECT_EQ(context["recv_functions"][0]["outputs"], 1);
}

// Where the sum was computed.
inline void ExpectCalleeGraph(const nlohmann::json& context, int caller) {
  SCOPED_TRACE("callee: " + context.dump());
  ASSERT_EQ(context["send_functions"].size(), 1u);
  EXPECT_EQ(context["send_functions"][0]["to"], caller);
  ExpectSumOfRecv(context, context["send_functions"][0]["next"]);
  ASSERT_EQ(context["recv_functions"].size(), 1u);
  EXPECT_EQ(context["recv_functions"][0]["from"], caller);
  EXPECT_EQ(context["recv_functions"][0]["outputs"], 2);
}

// On a worker that passes the call on and the result back: two send functions, each to a recv function.
inline void ExpectMiddleGraph(const nlohmann::json& context, int caller, int callee) {
  SCOPED_TRACE("between: " + context.dump());
  ASSERT_EQ(context["send_functions"].size(), 2u);
  // Message ids grow: the call to the callee was sent before the answer to the caller.
  const auto& call = context["send_functions"][0];
  const auto& answer = context["send_functions"][1];
  EXPECT_EQ(call["to"], callee);
  ExpectOutputsOfOneRecv(context, call["next"], 2);
  EXPECT_EQ(answer["to"], caller);
  ExpectOutputsOfOneRecv(context, answer["next"], 1);
  ASSERT_EQ(context["recv_functions"].size(), 2u);
  std::multiset<int> outputs;
  for (const auto& recv : context["recv_functions"]) {
    outputs.insert(recv["outputs"].get<int>());
    EXPECT_EQ(recv["from"], recv["outputs"] == 2 ? caller : callee);
  }
  EXPECT_EQ(outputs, (std::multiset<int>{1, 2}));
}

// On a worker that made a call which came back to it by way of a peer.
inline void ExpectLoopGraph(const nlohmann::json& context, int peer) {
  SCOPED_TRACE("loop: " + context.dump());
  ASSERT_EQ(context["send_functions"].size(), 2u);
  const auto& call = context["send_functions"][0];
  const auto& answer = context["send_functions"][1];
  EXPECT_EQ(call["to"], peer);
  EXPECT_EQ(answer["to"], peer);
  ExpectLeaves(context, call["next"], 2);
  ExpectSumOfRecv(context, answer["next"]);
  ASSERT_EQ(context["recv_functions"].size(), 2u);
  for (const auto& recv : context["recv_functions"]) EXPECT_EQ(recv["from"], peer);
}

}  // namespace gf
