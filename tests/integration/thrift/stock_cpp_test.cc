// A stock client in C++: generated code, Thrift's own framed transport and binary protocol, nothing of Gradferry's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include <cstring>
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
    stub_ = std::make_unique<idl::GradferryClient>(
        std::make_shared<TBinaryProtocol>(std::make_shared<TFramedTransport>(socket)));
  }

  idl::GradferryClient* operator->() { return stub_.get(); }

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
  idl::Value wrong = FloatTensor({3}, {1, 2});
  EXPECT_EQ(ErrorFrom([&] { client.Call("echo", {Integer(1), wrong}); }).code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(ErrorFrom([&] { client.Call("echo", {Integer(1), wrong}); }).message, HasSubstr("argument 1: "));
  wrong.tensor.sizes = {-1};
  EXPECT_THAT(ErrorFrom([&] { client.Call("echo", {wrong}); }).message, HasSubstr("negative size"));
  wrong.tensor.sizes = {int64_t{1} << 62, 16};
  EXPECT_EQ(ErrorFrom([&] { client.Call("echo", {wrong}); }).code, GF_INVALID_ARGUMENT);
  wrong.tensor.dtype = static_cast<idl::DType::type>(99);
  EXPECT_THAT(ErrorFrom([&] { client.Call("echo", {wrong}); }).message, HasSubstr("dtype"));
  wrong = Integer(1);
  wrong.__set_text("both");
  EXPECT_THAT(ErrorFrom([&] { client.Call("echo", {wrong}); }).message, HasSubstr("several fields"));
  EXPECT_EQ(client.Call("echo", {Integer(1)}).at(0).integer, 1);
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
