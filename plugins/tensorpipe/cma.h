// Reading another process's memory (process_vm_readv), so that large segments travel with one copy and no socket. What
// both sides must show before it is done, and the reading itself. Called by Connection.
//
// Whether it works depends on users, namespaces, capabilities and Yama, and on the direction, so it is tried: the
// receiver picks a challenge and sends it over the connection, the sender writes it into its Record, the receiver reads
// that and compares. The challenge is the proof that the process which is read is the one at the other end: nothing
// that a stranger says about pids and addresses is believed.
//
// A stranger between two workers could pass the challenge on to a third and have that one's memory read. So the record
// also holds which end of a connection it belongs to and by which address that was made, and both must fit the reader's
// own connection; the third one's do not.
//
// A record is read again after every copy. It is made invalid before the bytes that were sent are given back, so bytes
// that were overwritten meanwhile are noticed.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

using Challenge = std::array<unsigned char, 16>;

enum class End : uint32_t { kDialling = 1, kListening = 2 };

// What the other side may read of this one. It stays where it is.
class CmaRecord {
 public:
  // address: by which the connection was made, as both ends know it.
  CmaRecord(End end, const std::string& address);
  CmaRecord(const CmaRecord&) = delete;
  CmaRecord& operator=(const CmaRecord&) = delete;
  ~CmaRecord() { Invalidate(); }

  uint64_t location() const { return reinterpret_cast<uintptr_t>(&bytes_); }
  void Write(const Challenge& challenge);
  // From now on whoever reads it knows that the memory that was lent is not ours to lend any more.
  void Invalidate();

 private:
  friend class CmaReader;
  struct Bytes {
    uint64_t magic;
    uint32_t end;
    uint32_t address_length;
    Challenge challenge;
    char address[160];
  };
  Bytes bytes_;
};

// The other side's process, as it says.
class CmaReader {
 public:
  CmaReader() = default;
  // end and address: the other side's, as this side knows them.
  CmaReader(int64_t pid, uint64_t location, const Challenge& challenge, End end, const std::string& address);

  // Whether the process at the other end can be read, and is the one at the other end. The reason for people when not.
  Status Test() const;

  // Copies from the addresses in the other process to segments. Waits for nobody.
  Status Read(const std::vector<uint64_t>& from, const std::vector<gf_transport_segment>& to) const;

 private:
  Status ReadRecord() const;

  int64_t pid_ = 0;
  uint64_t location_ = 0;
  CmaRecord::Bytes expected_{};
};

// From the kernel's generator.
Challenge NewChallenge();

}  // namespace gradferry::tp
