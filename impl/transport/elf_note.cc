// See elf_note.h.
#include "impl/transport/elf_note.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <system_error>
#include <vector>

#include "gradferry/transport.h"

namespace gradferry {
namespace {

// Note segments hold a build id and a few words; what is larger is not read.
constexpr uint64_t kMaxNoteBytes = 1 << 20;

constexpr unsigned char kNativeByteOrder = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;

std::string ErrnoText(int error) { return std::generic_category().message(error); }

// An open file that is read by offset, never beyond the size that it had when it was opened.
class InputFile {
 public:
  InputFile() = default;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  Status Open(const std::string& path) {
    // Non-blocking, because opening a FIFO would wait for its writer.
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) {
      const int error = errno;
      if (error == ENOENT || error == ENOTDIR) return NotFound("no such file");
      const Code code = error == EACCES ? Code::kPermissionDenied : Code::kUnavailable;
      return Status(code, StrCat("cannot be opened: ", ErrnoText(error)));
    }
    struct stat facts;
    if (::fstat(fd_, &facts) != 0) return Status(Code::kUnavailable, StrCat("cannot be read: ", ErrnoText(errno)));
    if (!S_ISREG(facts.st_mode)) return InvalidArgument("not a Gradferry transport plugin: not a regular file");
    size_ = static_cast<uint64_t>(facts.st_size);
    id_ = FileId{facts.st_dev, facts.st_ino};
    return OkStatus();
  }

  const FileId& id() const { return id_; }

  bool Has(uint64_t offset, uint64_t length) const { return offset <= size_ && length <= size_ - offset; }

  // False when any of the bytes lies beyond the end, or cannot be read.
  bool Read(uint64_t offset, void* data, uint64_t length) const {
    if (!Has(offset, length)) return false;
    auto* at = static_cast<char*>(data);
    while (length > 0) {
      const ssize_t got = ::pread(fd_, at, length, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      at += got;
      offset += static_cast<uint64_t>(got);
      length -= static_cast<uint64_t>(got);
    }
    return true;
  }

 private:
  int fd_ = -1;
  uint64_t size_ = 0;
  FileId id_;
};

uint64_t AlignUp(uint64_t value, uint64_t align) { return (value + align - 1) & ~(align - 1); }

// Looks for our note in the bytes of one note segment. All arithmetic is on 64 bits with 32-bit operands, so nothing
// wraps round.
std::optional<PluginNote> FindNote(const std::vector<char>& bytes, uint64_t align) {
  uint64_t at = 0;
  while (bytes.size() - at >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    const uint64_t name_at = at + sizeof(header);
    const uint64_t desc_at = AlignUp(name_at + header.n_namesz, align);
    const uint64_t desc_end = desc_at + header.n_descsz;
    if (desc_end > bytes.size()) return std::nullopt;
    const bool ours = header.n_type == GF_TRANSPORT_NOTE_TYPE && header.n_namesz == sizeof(GF_TRANSPORT_NOTE_NAME) &&
                      std::memcmp(bytes.data() + name_at, GF_TRANSPORT_NOTE_NAME, sizeof(GF_TRANSPORT_NOTE_NAME)) == 0;
    if (ours && header.n_descsz >= 2 * sizeof(uint32_t)) {
      PluginNote note;
      std::memcpy(&note.epoch, bytes.data() + desc_at, sizeof(uint32_t));
      std::memcpy(&note.minor, bytes.data() + desc_at + sizeof(uint32_t), sizeof(uint32_t));
      return note;
    }
    at = std::min<uint64_t>(AlignUp(desc_end, align), bytes.size());
  }
  return std::nullopt;
}

Status NotAPlugin(const char* why) { return InvalidArgument(StrCat("not a Gradferry transport plugin: ", why)); }

Status CheckHeader(const Elf64_Ehdr& header) {
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return NotAPlugin("not a 64-bit file");
  if (header.e_ident[EI_DATA] != kNativeByteOrder) return NotAPlugin("made for another byte order");
  if (header.e_type != ET_DYN) return NotAPlugin("not a shared object");
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return NotAPlugin("its program headers have an unknown size");
  return OkStatus();
}

}  // namespace

Result<PluginNote> ReadPluginNote(const std::string& path) {
  InputFile file;
  GF_RETURN_IF_ERROR(file.Open(path));

  unsigned char magic[SELFMAG];
  if (!file.Read(0, magic, sizeof(magic)) || std::memcmp(magic, ELFMAG, SELFMAG) != 0) {
    return NotAPlugin("not an ELF file");
  }
  Elf64_Ehdr header;
  if (!file.Read(0, &header, sizeof(header))) return NotAPlugin("the file is cut off");
  GF_RETURN_IF_ERROR(CheckHeader(header));

  const uint64_t table_size = uint64_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (!file.Has(header.e_phoff, table_size)) return NotAPlugin("the file is cut off");
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!file.Read(header.e_phoff, segments.data(), table_size)) return NotAPlugin("the file cannot be read");
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMaxNoteBytes) continue;
    if (!file.Has(segment.p_offset, segment.p_filesz)) return NotAPlugin("the file is cut off");
    std::vector<char> bytes(segment.p_filesz);
    if (!file.Read(segment.p_offset, bytes.data(), bytes.size())) return NotAPlugin("the file cannot be read");
    if (auto note = FindNote(bytes, segment.p_align == 8 ? 8 : 4)) {
      note->file = file.id();
      return *note;
    }
  }
  return NotAPlugin("it has no note named Gradferry");
}

}  // namespace gradferry
