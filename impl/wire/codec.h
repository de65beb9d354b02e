// Numbers and runs of bytes in a header, written and read with bounds: a Writer never grows beyond its limit, a Reader
// never reads beyond its bytes. All numbers have a fixed width and are little endian, so that each value has one
// encoding. What the fields mean, and what to say when a bound is hit, is encoder.h's and decoder.h's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace gradferry {

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Tensors travel as they lie in memory, little endian; a big-endian machine would have to swap their bytes."
#endif

class Writer {
 public:
  explicit Writer(uint64_t limit) : limit_(limit) { bytes_.reserve(kFirstReserve); }

  template <class T>
  void Number(T value) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    Append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void Raw(std::string_view bytes) { Append(bytes.data(), bytes.size()); }

  // Something did not fit; nothing is appended from then on.
  bool full() const { return full_; }
  uint64_t limit() const { return limit_; }
  size_t size() const { return bytes_.size(); }
  std::string Take() { return std::move(bytes_); }

 private:
  // An ordinary call fits, so that it is one allocation.
  static constexpr size_t kFirstReserve = 512;

  void Append(const char* data, size_t size) {
    if (full_ || size > limit_ - bytes_.size()) {
      full_ = true;
      return;
    }
    bytes_.append(data, size);
  }

  const uint64_t limit_;
  bool full_ = false;
  std::string bytes_;  // never longer than limit_
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  // False, and *value as it was, when fewer bytes are left.
  template <class T>
  bool Number(T* value) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return true;
  }
  // A view into the bytes that the Reader was made with.
  bool Raw(size_t size, std::string_view* value) {
    if (rest_.size() < size) return false;
    *value = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

}  // namespace gradferry
