// See stranger.h.
#include "tests/hostile/stranger.h"

#include <chrono>
#include <stdexcept>
#include <utility>

#include "impl/wire/seal.h"

namespace gradferry {
namespace {

// Reached only when the test is broken.
constexpr std::chrono::seconds kPatience{20};

}  // namespace

// ---- StrangerConnection --------------------------------------------------------------------------------------------

void StrangerConnection::Say(const Message& message, uint16_t version) {
  auto frame = EncodeFrame(message, {}, WireLimits());
  if (!frame.ok()) throw std::invalid_argument(frame.status().ToString());
  const bool own = std::holds_alternative<Hello>(message) || std::holds_alternative<HelloReply>(message);
  if (!own) SetFrameVersion(frame->header, version);
  std::vector<std::string> segments;
  for (const FrameSegment& segment : frame->segments) {
    segments.emplace_back(static_cast<const char*>(segment.data), segment.length);
  }
  SendHeader(std::move(frame->header), segments);
}

void StrangerConnection::SendHeader(std::string header, const std::vector<std::string>& segments) {
  {
    std::lock_guard lock(mutex_);
    AppendSeal(header, {next_out_++, std::nullopt});
  }
  SendBytes(std::move(header), segments);
}

void StrangerConnection::SendBytes(std::string bytes, const std::vector<std::string>& segments) {
  auto memory = std::make_shared<std::vector<std::string>>(segments);
  OutFrame frame;
  frame.header = std::move(bytes);
  for (std::string& segment : *memory) frame.segments.push_back({segment.data(), segment.size()});
  frame.owner = std::move(memory);
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(mutex_);
    connection = connection_;
  }
  // When it cannot be sent the connection has ended, which the test sees.
  if (connection) (void)connection->Send(std::move(frame));
}

void StrangerConnection::Close() {
  std::shared_ptr<Connection> connection;
  {
    std::lock_guard lock(mutex_);
    connection = connection_;
  }
  if (connection) connection->Close();
}

std::optional<StrangerConnection::Came> StrangerConnection::Next() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [this] { return ended_ || !came_.empty(); });
  if (came_.empty()) return std::nullopt;
  Came came = std::move(came_.front());
  came_.pop_front();
  return came;
}

bool StrangerConnection::Ended() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this] { return ended_; });
}

Status StrangerConnection::OnDescriptor(std::string_view header, std::vector<Segment>& segments) {
  GF_RETURN_IF_ERROR(ReadSeal(header).status());
  std::vector<uint64_t> lengths;
  for (const Segment& segment : segments) lengths.push_back(segment.length);
  std::lock_guard lock(mutex_);
  version_ = FrameVersion(header);
  GF_ASSIGN_OR_RETURN(decoder_, FrameDecoder::New(header.substr(0, header.size() - kSealBytes), lengths, WireLimits()));
  for (size_t i = 0; i < segments.size(); ++i) segments[i].data = decoder_->segments()[i].data;
  return OkStatus();
}

void StrangerConnection::OnFrame(Status status) {
  std::lock_guard lock(mutex_);
  const auto decoder = std::move(decoder_);
  if (!status.ok() || !decoder) return;
  auto message = decoder->Finish();
  if (!message.ok()) return;
  came_.push_back({version_, std::move(message->message)});
  changed_.notify_all();
}

void StrangerConnection::OnClosed(Status) {
  std::lock_guard lock(mutex_);
  connection_ = nullptr;
  ended_ = true;
  changed_.notify_all();
}

// ---- Stranger ------------------------------------------------------------------------------------------------------

Stranger::Stranger(const std::string& transport, const std::string& options) {
  auto opened = OpenTransport(transport, PluginSearch(), options, this);
  if (!opened.ok()) throw std::runtime_error(opened.status().ToString());
  transport_ = std::move(*opened);
}

Stranger::~Stranger() { transport_->Shutdown(); }

std::string Stranger::Listen() {
  auto address = transport_->Listen("");
  if (!address.ok()) throw std::runtime_error(address.status().ToString());
  return *address;
}

std::shared_ptr<StrangerConnection> Stranger::Dial(const std::string& address) {
  auto events = std::make_shared<StrangerConnection>();
  auto connection = transport_->Connect(address, events);
  if (!connection.ok()) throw std::runtime_error(connection.status().ToString());
  std::lock_guard lock(events->mutex_);
  if (!events->ended_) events->connection_ = *connection;
  return events;
}

std::shared_ptr<StrangerConnection> Stranger::Accept() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [this] { return !accepted_.empty(); });
  if (accepted_.empty()) return nullptr;
  auto connection = std::move(accepted_.front());
  accepted_.pop_front();
  return connection;
}

std::shared_ptr<ConnectionEvents> Stranger::OnAccept(std::shared_ptr<Connection> connection) {
  auto events = std::make_shared<StrangerConnection>();
  events->connection_ = std::move(connection);
  std::lock_guard lock(mutex_);
  accepted_.push_back(events);
  changed_.notify_all();
  return events;
}

}  // namespace gradferry
