// A stock client in C++: generated code, Thrift's own framed transport and binary protocol, nothing of Gradferry's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "Gradferry.h"
#include "tests/integration/thrift/stock.h"
#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

namespace idl = gradferry::thrift::idl;
using apache::thrift::protocol::TBinaryProtocol;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TSocket;
using ::testing::HasSubstr;

constexpr char kTcp[] = "tcp://127.0.0.1:0";
constexpr char kSecret[] = "a secret of this test's group";

class StockCppTest : public LiveTest {};

class Client {
 public:
  explicit Client(const std::string& address) {
    const auto socket = std::make_shared<TSocket>("127.0.0.1", std::stoi(address.substr(address.rfind(':') + 1)));
    socket->setRecvTimeout(20000);
    socket->open();
    protocol_ = std::make_shared<TBinaryProtocol>(std::make_shared<TFramedTransport>(socket));
    stub_ = std::make_unique<idl::GradferryClient>(protocol_);
  }

  idl::GradferryClient* operator->() { return stub_.get(); }
  TBinaryProtocol& protocol() { return *protocol_; }

  static idl::HelloRequest Greeting(const std::string& name = "stock", int id = 100) {
    idl::HelloRequest request;
    request.name = name;
    request.id = id;
    request.to_name = "server";
    request.to = 0;
    return request;
  }
  idl::HelloAnswer Hello() {
    idl::HelloAnswer answer;
    stub_->hello(answer, Greeting());
    return answer;
  }

  std::vector<idl::Value> Call(const std::string& name, const std::vector<idl::Value>& arguments,
                               bool is_operator = false, const std::string& overload = "") {
    idl::CallResult result;
    stub_->call(result, Request(name, arguments, is_operator, overload));
    return result.results;
  }
  static idl::CallRequest Request(const std::string& name, const std::vector<idl::Value>& arguments = {},
                                  bool is_operator = false, const std::string& overload = "") {
    idl::CallRequest request;
    request.name = name;
    request.arguments = arguments;
    request.is_operator = is_operator;
    request.overload = overload;
    return request;
  }

 private:
  std::shared_ptr<TBinaryProtocol> protocol_;
  std::unique_ptr<idl::GradferryClient> stub_;
};

template <class Body>
idl::Error ErrorFrom(Body body) {
  try {
    body();
  } catch (const idl::Error& error) {
    return error;
  }
  ADD_FAILURE() << "there was no error";
  return {};
}

idl::Value FloatTensor(const std::vector<int64_t>& sizes, const std::vector<float>& values) {
  idl::Tensor tensor;
  tensor.dtype = idl::DType::FLOAT32;
  tensor.sizes = sizes;
  tensor.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  idl::Value value;
  value.__set_tensor(tensor);
  return value;
}

std::vector<float> FloatsIn(const idl::Value& value) {
  std::vector<float> values(value.tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), value.tensor.data.data(), value.tensor.data.size());
  return values;
}

idl::Value Text(const std::string& text) {
  idl::Value value;
  value.__set_text(text);
  return value;
}
idl::Value Integer(int64_t integer) {
  idl::Value value;
  value.__set_integer(integer);
  return value;
}

TEST_F(StockCppTest, SaysHello) {
  const Stock stock(kTcp);
  Client client(stock.address());
  const idl::HelloAnswer answer = client.Hello();
  EXPECT_EQ(answer.name, "server");
  EXPECT_EQ(answer.id, 0);
  EXPECT_EQ(answer.proof, "");
  EXPECT_THAT(ErrorFrom([&] { client.Hello(); }).message, HasSubstr("already"));
}

TEST_F(StockCppTest, ValuesOfEveryKindGoThereAndBack) {
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  std::vector<idl::Value> arguments(3);  // the first is none
  arguments[1].__set_boolean(true);
  arguments[2].__set_number(-0.5);
  arguments.push_back(Integer(-7));
  arguments.push_back(
      Text("gr\xC3\xBC\xC3\x9F"
           "e"));
  arguments.emplace_back().__set_bytes(std::string("\x00\xff", 2));
  arguments.push_back(FloatTensor({2, 3}, {1, 2, 3, 4, 5, 6}));
  arguments.push_back(FloatTensor({0, 3}, {}));
  arguments.push_back(FloatTensor({}, {7}));
  arguments.push_back(FloatTensor({100, 100}, std::vector<float>(10000, 0.25f)));
  arguments.emplace_back().__set_items(
      {Integer(1), FloatTensor({1}, {8}), FloatTensor({5000}, std::vector<float>(5000, 9))});
  EXPECT_TRUE(client.Call("echo", arguments) == arguments);
  EXPECT_TRUE(client.Call("echo", {}).empty());
}

TEST_F(StockCppTest, OperatorsRunThere) {
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  const idl::Value a = FloatTensor({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(FloatsIn(client.Call("aten::mul", {a, a}, true, "Tensor").at(0)), (std::vector<float>{1, 4, 9, 16}));
  // What is not row-major there, is here.
  EXPECT_EQ(FloatsIn(client.Call("aten::transpose", {a, Integer(0), Integer(1)}, true, "int").at(0)),
            (std::vector<float>{1, 3, 2, 4}));
  idl::Value sizes;
  sizes.__set_items({Integer(3), Integer(2)});
  idl::Value no;
  no.__set_boolean(false);
  EXPECT_EQ(FloatsIn(client.Call("aten::expand", {FloatTensor({1, 2}, {5, 6}), sizes, no}, true).at(0)),
            (std::vector<float>{5, 6, 5, 6, 5, 6}));
}

TEST_F(StockCppTest, FailuresAreTypedAndSpareTheConnection) {
  const Stock stock(kTcp);
  Client client(stock.address());
  EXPECT_EQ(ErrorFrom([&] { client.Call("echo", {}); }).code, GF_FAILED_PRECONDITION) << "before hello";
  client.Hello();
  const idl::Error failed = ErrorFrom([&] { client.Call("fail", {}); });
  EXPECT_EQ(failed.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(failed.message, HasSubstr("no such luck"));
  EXPECT_EQ(failed.worker, "server");
  EXPECT_EQ(ErrorFrom([&] { client.Call("nobody", {}); }).code, GF_NOT_FOUND);
  EXPECT_EQ(client.Call("echo", {Integer(1)}).at(0).integer, 1);
}

// A list in a list in a list...
idl::Value Nested(int levels) {
  idl::Value value = Integer(1);
  for (int i = 0; i < levels; ++i) {
    idl::Value list;
    list.__set_items({value});
    value = list;
  }
  return value;
}

idl::Value WithTensor(int dtype, const std::vector<int64_t>& sizes, size_t bytes) {
  idl::Value value;
  value.__isset.tensor = true;
  value.tensor.dtype = static_cast<idl::DType::type>(dtype);
  value.tensor.sizes = sizes;
  value.tensor.data.assign(bytes, 'x');
  return value;
}

// What is wrong is named, and the connection goes on.
TEST_F(StockCppTest, WrongArgumentsAreAnsweredWithWhatIsWrong) {
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  idl::Value several = Integer(1);
  several.__set_text("both");
  const int64_t huge = int64_t{1} << 62;
  const struct {
    idl::Value argument;
    int code;
    const char* named;
  } cases[] = {
      {WithTensor(99, {1}, 4), GF_INVALID_ARGUMENT, "dtype is 99, which is none"},
      {WithTensor(-1, {1}, 4), GF_INVALID_ARGUMENT, "dtype is -1, which is none"},
      {WithTensor(8, {1}, 4), GF_INVALID_ARGUMENT, "dtype is 8, which is none"},
      {WithTensor(262, {1}, 4), GF_INVALID_ARGUMENT, "dtype is 262, which is none"},
      {WithTensor(6, {2, -1}, 4), GF_INVALID_ARGUMENT, "dimension 1 of a tensor has the negative size -1"},
      {WithTensor(6, {INT64_MIN}, 0), GF_INVALID_ARGUMENT, "negative size"},
      {WithTensor(6, std::vector<int64_t>(65, 1), 4), GF_RESOURCE_EXHAUSTED, "65 dimensions"},
      {WithTensor(6, std::vector<int64_t>(100000, 1), 4), GF_RESOURCE_EXHAUSTED, "100000 dimensions"},
      {WithTensor(6, {huge, 16}, 4), GF_INVALID_ARGUMENT, "more than 2^63 bytes"},
      {WithTensor(6, {huge, 16, 0}, 0), GF_INVALID_ARGUMENT, "more than 2^63 bytes"},
      {WithTensor(6, {0, huge, huge}, 0), GF_INVALID_ARGUMENT, "more than 2^63 bytes"},
      {WithTensor(6, {huge / 4}, 4), GF_INVALID_ARGUMENT, "has 4 bytes, its sizes and dtype make 4611686018427387904"},
      {WithTensor(6, {3}, 8), GF_INVALID_ARGUMENT, "has 8 bytes, its sizes and dtype make 12"},
      {WithTensor(6, {3}, 16), GF_INVALID_ARGUMENT, "has 16 bytes, its sizes and dtype make 12"},
      {WithTensor(6, {}, 0), GF_INVALID_ARGUMENT, "has 0 bytes, its sizes and dtype make 4"},
      {WithTensor(6, {0}, 1), GF_INVALID_ARGUMENT, "has 1 bytes, its sizes and dtype make 0"},
      {Text("\xff\xfe"), GF_INVALID_ARGUMENT, "not UTF-8"},
      {Text("\xed\xa0\x80"), GF_INVALID_ARGUMENT, "not UTF-8"},
      {several, GF_INVALID_ARGUMENT, "several fields"},
      {Nested(17), GF_RESOURCE_EXHAUSTED, "deeper within each other than the 16"},
      // Thrift's own C++ code writes no deeper ones.
      {Nested(60), GF_RESOURCE_EXHAUSTED, "deeper within each other than the 16"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.named);
    const idl::Error direct = ErrorFrom([&] { client.Call("echo", {Integer(1), one.argument}); });
    EXPECT_EQ(direct.code, one.code) << direct.message;
    EXPECT_THAT(direct.message, ::testing::StartsWith("argument 1: "));
    EXPECT_THAT(direct.message, HasSubstr(one.named));
    idl::Value list;
    list.__set_items({Integer(1), Integer(2), one.argument});
    const idl::Error nested = ErrorFrom([&] { client.Call("echo", {list}); });
    EXPECT_EQ(nested.code, one.code) << nested.message;
    EXPECT_THAT(nested.message, ::testing::StartsWith("argument 0: item 2: "));
  }
  // As deep as lists may be, and what else is unusual but right.
  for (const idl::Value& right : {Nested(16), WithTensor(6, {0, 3}, 0), WithTensor(6, {0, 1 << 30}, 0),
                                  WithTensor(1, std::vector<int64_t>(64, 1), 1)}) {
    EXPECT_TRUE(client.Call("echo", {right}).at(0) == right);
  }
  EXPECT_EQ(ErrorFrom([&] { client.Call("echo", std::vector<idl::Value>(100001, WithTensor(6, {0}, 0))); }).code,
            GF_RESOURCE_EXHAUSTED);
  EXPECT_EQ(ErrorFrom([&] { client.Call(std::string(256, 'x'), {}); }).code, GF_RESOURCE_EXHAUSTED);
  EXPECT_EQ(ErrorFrom([&] { client.Call("\xff", {}); }).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(ErrorFrom([&] { client.Call("", {}); }).code, GF_NOT_FOUND);
  EXPECT_EQ(client.Call("echo", {Integer(1)}).at(0).integer, 1);
}

// A call whose bytes the writer makes: what stands where its arguments should. The answer is a method's, or Thrift's.
idl::Error ErrorOfBytes(Client& client, const std::function<void(TBinaryProtocol&)>& write) {
  TBinaryProtocol& out = client.protocol();
  out.writeMessageBegin("call", apache::thrift::protocol::T_CALL, 7);
  out.writeFieldBegin("request", apache::thrift::protocol::T_STRUCT, 1);
  out.writeFieldBegin("name", apache::thrift::protocol::T_STRING, 1);
  out.writeString(std::string("echo"));
  write(out);
  out.writeFieldStop();
  out.writeFieldStop();
  out.writeMessageEnd();
  out.getTransport()->writeEnd();
  out.getTransport()->flush();
  return ErrorFrom([&] {
    idl::CallResult result;
    client->recv_call(result);
  });
}

TEST_F(StockCppTest, WhatIsNoCallIsAnsweredToo) {
  using namespace apache::thrift::protocol;  // NOLINT
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  const auto arguments = [](TBinaryProtocol& out, uint32_t count) {
    out.writeFieldBegin("arguments", T_LIST, 2);
    out.writeListBegin(T_STRUCT, count);
  };
  const int deep = 10000;
  EXPECT_EQ(ErrorOfBytes(client,
                         [&](TBinaryProtocol& out) {
                           arguments(out, 1);
                           for (int i = 0; i < deep; ++i) {
                             out.writeFieldBegin("items", T_LIST, 7);
                             out.writeListBegin(T_STRUCT, 1);
                           }
                           for (int i = 0; i <= deep; ++i) out.writeFieldStop();
                         })
                .code,
            GF_RESOURCE_EXHAUSTED);
  // In a field that nobody knows.
  EXPECT_EQ(ErrorOfBytes(client,
                         [&](TBinaryProtocol& out) {
                           for (int i = 0; i < deep; ++i) out.writeFieldBegin("unknown", T_STRUCT, 99);
                           for (int i = 0; i < deep; ++i) out.writeFieldStop();
                         })
                .code,
            GF_DATA_LOSS);
  const idl::Error wrong_type = ErrorOfBytes(client, [&](TBinaryProtocol& out) {
    arguments(out, 1);
    out.writeFieldBegin("integer", T_STRING, 2);
    out.writeString(std::string("5"));
    out.writeFieldStop();
  });
  EXPECT_EQ(wrong_type.code, GF_DATA_LOSS);
  EXPECT_EQ(wrong_type.message, "argument 0: field 2 of a value cannot be read");
  for (const uint32_t count : {0x7fffffffu, 0xffffffffu, 5u}) {
    EXPECT_EQ(ErrorOfBytes(client, [&](TBinaryProtocol& out) { arguments(out, count); }).code, GF_DATA_LOSS);
  }
  const idl::Error no_list = ErrorOfBytes(client, [&](TBinaryProtocol& out) {
    out.writeFieldBegin("arguments", T_I64, 2);
    out.writeI64(1);
  });
  EXPECT_EQ(no_list.code, GF_DATA_LOSS) << no_list.message;
  EXPECT_EQ(client.Call("echo", {Integer(1)}).at(0).integer, 1);
}

// A worker may take less than usual. Then it is the worker that ends the connection, but the client is told.
TEST_F(StockCppTest, WhatAStricterWorkerRefusesIsAnsweredBeforeTheEnd) {
  const Stock stock(kTcp, {{"limits.nesting", "4"}});
  Client client(stock.address());
  client.Hello();
  EXPECT_TRUE(client.Call("echo", {Nested(4)}).at(0) == Nested(4));
  const idl::Error refused = ErrorFrom([&] { client.Call("echo", {Nested(5)}); });
  EXPECT_EQ(refused.code, GF_RESOURCE_EXHAUSTED) << refused.message;
  EXPECT_THROW(client.Call("echo", {Integer(1)}), apache::thrift::transport::TTransportException);
}

TEST_F(StockCppTest, AStrangerIsRefusedWithAReason) {
  const Stock stock(kTcp);
  {
    Client client(stock.address());
    idl::HelloRequest request = Client::Greeting();
    request.group = "another";
    idl::HelloAnswer answer;
    EXPECT_THAT(ErrorFrom([&] { client->hello(answer, request); }).message, HasSubstr("group"));
  }
  {
    Client client(stock.address());
    idl::HelloRequest request = Client::Greeting();
    request.to_name = "somebody";
    idl::HelloAnswer answer;
    EXPECT_EQ(ErrorFrom([&] { client->hello(answer, request); }).code, GF_FAILED_PRECONDITION);
  }
  Client client(stock.address());
  EXPECT_EQ(client.Hello().name, "server");
}

// Answers come as they get ready, not as the calls were sent.
TEST_F(StockCppTest, SeveralCallsAreUnderWayAtOnce) {
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  // Thrift's plain client numbers nothing, so each of these answers is told by what is in it.
  client->send_call(Client::Request("wait"));
  for (int i = 0; i < 20; ++i) client->send_call(Client::Request("echo", {Integer(i)}));
  std::vector<int64_t> echoes;
  for (int i = 0; i < 20; ++i) {
    idl::CallResult result;
    client->recv_call(result);
    echoes.push_back(result.results.at(0).integer);
  }
  EXPECT_THAT(echoes, ::testing::SizeIs(20));
  stock.AnswerWaiting();
  idl::CallResult last;
  client->recv_call(last);
  EXPECT_EQ(last.results.at(0).text, "waited");
}

TEST_F(StockCppTest, ATensorOfManyMegabytesGoesThereAndBack) {
  const Stock stock(kTcp);
  Client client(stock.address());
  client.Hello();
  idl::Value large = FloatTensor({3000000}, std::vector<float>(3000000, 1.5f));
  large.tensor.data[11345678] = 1;
  EXPECT_TRUE(client.Call("echo", {large}).at(0) == large);
}

std::string Little(uint64_t value, size_t bytes) {
  std::string text;
  for (; bytes > 0; --bytes, value >>= 8) text.push_back(static_cast<char>(value & 0xFF));
  return text;
}
std::string WithLength(const std::string& text) { return Little(text.size(), 4) + text; }

// As gradferry.thrift says.
std::string Proof(const std::string& secret, const std::string& label, const idl::HelloRequest& hello,
                  const std::string& reply) {
  const std::string said =
      std::string("GF") + Little(2, 2) + Little(1, 1) + Little(2, 2) + Little(2, 2) + WithLength(hello.group) +
      WithLength(hello.name) + Little(static_cast<uint64_t>(hello.id), 2) +
      Little(static_cast<uint64_t>(hello.incarnation), 8) + Little(static_cast<uint64_t>(hello.to), 2) +
      WithLength(hello.to_name) + Little(1, 8) + hello.nonce;
  const std::string text = label + '\0' + WithLength(said) + WithLength(reply);
  unsigned char proof[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), proof, &length);
  return std::string(reinterpret_cast<char*>(proof), length);
}

TEST_F(StockCppTest, ProvesTheGroupsSecret) {
  const Stock stock(kTcp, {{"security.secret", kSecret}});
  {
    Client without(stock.address());
    EXPECT_EQ(ErrorFrom([&] { without.Hello(); }).code, GF_UNAUTHENTICATED);
  }
  idl::HelloRequest hello = Client::Greeting();
  hello.nonce = std::string(32, 'n');
  idl::HelloAnswer answer;
  {
    Client liar(stock.address());
    liar->hello(answer, hello);
    EXPECT_TRUE(answer.proof == Proof(kSecret, "gradferry acceptor", hello, answer.reply));
    liar->prove(Proof("another secret, a wrong one", "gradferry dialler", hello, answer.reply));
    EXPECT_THROW(liar.Call("echo", {}), apache::thrift::TException);
  }
  Client client(stock.address());
  client->hello(answer, hello);
  client->prove(Proof(kSecret, "gradferry dialler", hello, answer.reply));
  EXPECT_EQ(client.Call("echo", {Integer(5)}).at(0).integer, 5);
}

}  // namespace
}  // namespace gf
