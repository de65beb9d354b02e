// Unit tests of c_api/boundary.h and of the errors that come out there.
#include "c_api/boundary.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <stdexcept>
#include <string>

namespace gradferry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// An owned gf_error.
struct Caught {
  ~Caught() { gf_error_unref(error); }
  std::string Text(uint32_t which = GF_ERROR_MESSAGE) const { return gf_error_text(error, which, nullptr); }
  gf_error* error = reinterpret_cast<gf_error*>(8);  // to see that it is zeroed
};

TEST(BoundaryTest, ASuccessGivesNoErrorAndKeepsWhatTheBodySet) {
  Caught caught;
  int value = 5;
  EXPECT_EQ(AtBoundary(&caught.error, Outs(&value), [&] { return value = 7, OkStatus(); }), GF_OK);
  EXPECT_EQ(caught.error, nullptr);
  EXPECT_EQ(value, 7);
}

TEST(BoundaryTest, OutParametersAreZeroedOnEntryAndRefusedWhenNull) {
  Caught caught;
  int value = 5;
  int* missing = nullptr;
  bool ran = false;
  int32_t code = AtBoundary(&caught.error, Outs(missing, &value), [&] { return ran = true, OkStatus(); });
  EXPECT_EQ(code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(value, 0);
  EXPECT_FALSE(ran);
  EXPECT_EQ(gf_error_code(caught.error), GF_INVALID_ARGUMENT);
}

TEST(BoundaryTest, TheErrorMayBeNull) {
  EXPECT_EQ(AtBoundary(nullptr, Outs(), [] { return NotFound("x"); }), GF_NOT_FOUND);
}

template <class Thrown>
int32_t Throwing(Caught* caught, Thrown thrown) {
  return AtBoundary(&caught->error, Outs(), [&]() -> Status { throw thrown; });
}

TEST(BoundaryTest, EveryExceptionBecomesACode) {
  Caught memory, standard, number, torch;
  EXPECT_EQ(Throwing(&memory, std::bad_alloc()), GF_RESOURCE_EXHAUSTED);
  EXPECT_EQ(Throwing(&standard, std::runtime_error("why")), GF_UNKNOWN);
  EXPECT_EQ(standard.Text(), "why");
  EXPECT_EQ(Throwing(&number, 3), GF_UNKNOWN);
  EXPECT_NE(number.error, nullptr);
  int32_t code = AtBoundary(&torch.error, Outs(), []() -> Status { TORCH_CHECK_INDEX(false, "out of it"); });
  EXPECT_EQ(code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(torch.Text(), HasSubstr("out of it"));
  EXPECT_THAT(torch.Text(), Not(HasSubstr("frame #")));
}

TEST(BoundaryTest, AForkedChildIsRefused) {
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int32_t code = AtBoundary(nullptr, Outs(), [] { return OkStatus(); });
    _exit(code == GF_FAILED_PRECONDITION ? 42 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(AtBoundary(nullptr, Outs(), [] { return OkStatus(); }), GF_OK);
}

TEST(ErrorTest, ShowsEveryFactAndTheChain) {
  int64_t before = gf_live_objects(GF_LIVE_ERRORS);
  {
    Status inner = Status(Code::kDeadlineExceeded, "no answer").WithPeer("stage2").WithElapsed(5000000);
    Status outer = inner.Wrap(Code::kPassAborted, "the pass failed")
                       .WithWorker("stage1")
                       .WithOperation("aten::mm")
                       .WithDomain("autograd")
                       .WithRetry(Retry::kSamePeer);
    Caught caught;
    EXPECT_EQ(Report(outer, &caught.error), GF_PASS_ABORTED);
    EXPECT_EQ(gf_error_code(caught.error), GF_PASS_ABORTED);
    EXPECT_EQ(caught.Text(), "the pass failed");
    EXPECT_EQ(caught.Text(GF_ERROR_DOMAIN), "autograd");
    EXPECT_EQ(caught.Text(GF_ERROR_WORKER), "stage1");
    EXPECT_EQ(caught.Text(GF_ERROR_OPERATION), "aten::mm");
    EXPECT_EQ(caught.Text(GF_ERROR_PEER), "");
    EXPECT_EQ(caught.Text(99), "");
    EXPECT_EQ(gf_error_retry(caught.error), GF_RETRY_SAME_PEER);
    EXPECT_EQ(gf_error_elapsed_ns(caught.error), 0);
    size_t length = 0;
    EXPECT_STREQ(gf_error_text(caught.error, GF_ERROR_WORKER, &length), "stage1");
    EXPECT_EQ(length, 6u);

    const gf_error* cause = gf_error_cause(caught.error);
    ASSERT_NE(cause, nullptr);
    EXPECT_EQ(gf_error_code(cause), GF_DEADLINE_EXCEEDED);
    EXPECT_EQ(gf_error_elapsed_ns(cause), 5000000);
    EXPECT_EQ(gf_error_cause(cause), nullptr);

    ASSERT_EQ(gf_error_describe(caught.error, nullptr, 0, &length), GF_OK);
    std::string text(length + 1, 'x');
    ASSERT_EQ(gf_error_describe(caught.error, text.data(), text.size(), &length), GF_OK);
    EXPECT_EQ(text.substr(0, length), outer.ToString());
    EXPECT_EQ(text[length], '\0');

    // The cause lives on its own when it is asked to.
    gf_error* kept = gf_error_ref(const_cast<gf_error*>(cause));
    gf_error_unref(caught.error);
    caught.error = nullptr;
    EXPECT_STREQ(gf_error_text(kept, GF_ERROR_PEER, nullptr), "stage2");
    gf_error_unref(kept);
  }
  EXPECT_EQ(gf_live_objects(GF_LIVE_ERRORS), before);
}

TEST(ErrorTest, NullIsNoError) {
  size_t length = 9;
  EXPECT_EQ(gf_error_code(nullptr), GF_OK);
  EXPECT_STREQ(gf_error_text(nullptr, GF_ERROR_MESSAGE, &length), "");
  EXPECT_EQ(length, 0u);
  EXPECT_EQ(gf_error_cause(nullptr), nullptr);
  EXPECT_EQ(gf_error_retry(nullptr), GF_RETRY_NEVER);
  EXPECT_EQ(gf_error_describe(nullptr, nullptr, 0, &length), GF_OK);
  EXPECT_EQ(length, 2u);
  EXPECT_EQ(gf_error_ref(nullptr), nullptr);
  gf_error_unref(nullptr);
}

TEST(ErrorTest, CodesHaveNames) {
  EXPECT_STREQ(gf_code_name(GF_OK), "OK");
  EXPECT_STREQ(gf_code_name(GF_DEADLINE_EXCEEDED), "DEADLINE_EXCEEDED");
  EXPECT_STREQ(gf_code_name(GF_REENTRANT), "REENTRANT");
  EXPECT_STREQ(gf_code_name(17), "UNKNOWN_CODE");
  EXPECT_STREQ(gf_code_name(-1), "UNKNOWN_CODE");
}

TEST(TextTest, TheTwoCallPatternGivesLengthThenText) {
  size_t length = 0;
  EXPECT_TRUE(TextOut("hello", nullptr, 0, &length).ok());
  EXPECT_EQ(length, 5u);
  char buffer[8];
  std::memset(buffer, 'x', sizeof(buffer));
  EXPECT_EQ(TextOut("hello", buffer, 5, &length).code(), Code::kOutOfRange);
  EXPECT_EQ(length, 5u);
  EXPECT_EQ(buffer[0], 'x');
  EXPECT_TRUE(TextOut("hello", buffer, 6, &length).ok());
  EXPECT_STREQ(buffer, "hello");
  EXPECT_EQ(buffer[6], 'x');
}

TEST(TextTest, TextsThatComeInAreCheckedForNullAndUtf8) {
  EXPECT_EQ(*TextIn("abc", 2, "the name"), "ab");
  EXPECT_EQ(*TextIn(nullptr, 0, "the name"), "");
  EXPECT_EQ(TextIn(nullptr, 3, "the name").status().message(), "the name is NULL, with a length of 3");
  EXPECT_EQ(TextIn("\xff", 1, "the name").status().message(), "the name is no UTF-8");
}

// A struct as this library knows it, and as an older and a newer caller do.
struct Known {
  uint32_t struct_size;
  uint32_t first;
  uint64_t second;
};
struct Older {
  uint32_t struct_size;
  uint32_t first;
};
struct Newer {
  uint32_t struct_size;
  uint32_t first;
  uint64_t second;
  uint64_t third;
};

TEST(StructTest, WhatAnOlderCallersStructLacksIsZero) {
  Older older{sizeof(Older), 7};
  Result<Known> known = StructIn(reinterpret_cast<const Known*>(&older), "known");
  ASSERT_TRUE(known.ok());
  EXPECT_EQ(known->first, 7u);
  EXPECT_EQ(known->second, 0u);
}

TEST(StructTest, ANewerCallersFieldMustBeZero) {
  Newer newer{sizeof(Newer), 7, 8, 0};
  Result<Known> known = StructIn(reinterpret_cast<const Known*>(&newer), "known");
  ASSERT_TRUE(known.ok());
  EXPECT_EQ(known->second, 8u);
  newer.third = uint64_t{1} << 63;
  known = StructIn(reinterpret_cast<const Known*>(&newer), "known");
  EXPECT_EQ(known.status().code(), Code::kUnsupported);
  EXPECT_THAT(known.status().message(), HasSubstr("byte 23"));
}

TEST(StructTest, ASizeThatIsNotSetIsRefused) {
  Known known{};
  EXPECT_EQ(StructIn(&known, "known").status().code(), Code::kInvalidArgument);
  EXPECT_EQ(StructIn<Known>(nullptr, "known").status().code(), Code::kInvalidArgument);
  known.struct_size = 0xffffffffu;
  EXPECT_EQ(StructIn(&known, "known").status().code(), Code::kInvalidArgument);
}

TEST(StructTest, AStructGoesOutAsFarAsTheCallersReaches) {
  Older older{sizeof(Older), 0};
  StructOut(Known{0, 7, 8}, reinterpret_cast<Known*>(&older));
  EXPECT_EQ(older.first, 7u);
  EXPECT_EQ(older.struct_size, sizeof(Older));
  Newer newer{sizeof(Newer), 0, 0, 99};
  StructOut(Known{0, 7, 8}, reinterpret_cast<Known*>(&newer));
  EXPECT_EQ(newer.second, 8u);
  EXPECT_EQ(newer.third, 0u);
  EXPECT_EQ(newer.struct_size, sizeof(Newer));
}

}  // namespace
}  // namespace gradferry
