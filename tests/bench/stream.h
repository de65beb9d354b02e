// What the raw subjects speak over: a blocking stream of bytes between the two ends, over a Unix or TCP socket, plain
// or by TLS 1.3. Nothing of Gradferry, nothing clever: the limit that others are measured against.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace gradferry::bench {

class Stream {
 public:
  virtual ~Stream() = default;
  // All of it, or an exception.
  virtual void Write(const void* data, size_t size) = 0;
  virtual void Read(void* data, size_t size) = 0;
};

enum class Role { kDriver, kPeer };

// The peer listens below the folder, the driver connects to it.
std::unique_ptr<Stream> OpenUnix(Role role, const std::string& folder);
std::unique_ptr<Stream> OpenTcp(Role role, const std::string& folder);
// TLS over a stream's socket. The certificates of both sides are made on the spot, checked as far as TLS does.
std::unique_ptr<Stream> OpenTls(Role role, const std::string& folder, bool tcp);

// Puts a text where the other end finds it; waits for it.
void Publish(const std::string& folder, const std::string& text);
std::string AwaitPublished(const std::string& folder);

}  // namespace gradferry::bench
