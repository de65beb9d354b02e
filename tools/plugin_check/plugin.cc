#include "tools/plugin_check/plugin.h"

#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

namespace gradferry::check {
namespace {

// A file's bytes, read by offset with checks.
class Bytes {
 public:
  explicit Bytes(std::string bytes) : bytes_(std::move(bytes)) {}

  template <class T>
  bool Get(uint64_t offset, T* out) const {
    if (offset > bytes_.size() || sizeof(T) > bytes_.size() - offset) return false;
    std::memcpy(out, bytes_.data() + offset, sizeof(T));
    return true;
  }
  // A text up to its NUL.
  std::string Text(uint64_t offset) const {
    if (offset >= bytes_.size()) return "";
    return std::string(bytes_.c_str() + offset);
  }

 private:
  const std::string bytes_;
};

uint64_t AlignUp(uint64_t value, uint64_t align) { return (value + align - 1) & ~(align - 1); }

void FindNote(const Bytes& bytes, const Elf64_Shdr& section, FileFacts* facts) {
  const uint64_t align = section.sh_addralign == 8 ? 8 : 4;
  uint64_t at = section.sh_offset;
  const uint64_t end = at + section.sh_size;
  Elf64_Nhdr header;
  while (at < end && bytes.Get(at, &header)) {
    const uint64_t name_at = at + sizeof(header);
    const uint64_t desc_at = AlignUp(name_at + header.n_namesz, align);
    if (header.n_type == GF_TRANSPORT_NOTE_TYPE && header.n_namesz == sizeof(GF_TRANSPORT_NOTE_NAME) &&
        bytes.Text(name_at) == GF_TRANSPORT_NOTE_NAME && header.n_descsz >= 8) {
      facts->has_note = bytes.Get(desc_at, &facts->epoch) && bytes.Get(desc_at + 4, &facts->minor);
      return;
    }
    at = AlignUp(desc_at + header.n_descsz, align);
  }
}

void AddExports(const Bytes& bytes, const Elf64_Shdr& symbols, uint64_t strings, FileFacts* facts) {
  Elf64_Sym symbol;
  for (uint64_t at = sizeof(symbol); at + sizeof(symbol) <= symbols.sh_size; at += sizeof(symbol)) {
    if (!bytes.Get(symbols.sh_offset + at, &symbol)) return;
    if (symbol.st_shndx == SHN_UNDEF) continue;
    const unsigned visibility = ELF64_ST_VISIBILITY(symbol.st_other);
    if (visibility == STV_HIDDEN || visibility == STV_INTERNAL) continue;
    // Without a type are the linker's own marks, _end and the like.
    if (ELF64_ST_TYPE(symbol.st_info) == STT_NOTYPE) continue;
    if (ELF64_ST_BIND(symbol.st_info) == STB_LOCAL || symbol.st_shndx == SHN_ABS) continue;
    facts->exports.push_back(bytes.Text(strings + symbol.st_name));
  }
}

void AddNeeds(const Bytes& bytes, const Elf64_Shdr& dynamic, uint64_t strings, FileFacts* facts) {
  Elf64_Dyn entry;
  for (uint64_t at = 0; at + sizeof(entry) <= dynamic.sh_size; at += sizeof(entry)) {
    if (!bytes.Get(dynamic.sh_offset + at, &entry) || entry.d_tag == DT_NULL) return;
    if (entry.d_tag == DT_NEEDED) facts->needs.push_back(bytes.Text(strings + entry.d_un.d_val));
  }
}

}  // namespace

FileFacts ReadPluginFile(const std::string& path) {
  FileFacts facts;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    facts.error = "there is no such file, or it may not be read";
    return facts;
  }
  const Bytes bytes(std::string(std::istreambuf_iterator<char>(file), {}));
  Elf64_Ehdr header;
  if (!bytes.Get(0, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != ET_DYN || header.e_shentsize != sizeof(Elf64_Shdr)) {
    facts.error = "it is no 64-bit shared object with section headers";
    return facts;
  }
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  for (size_t i = 0; i < sections.size(); ++i) {
    if (!bytes.Get(header.e_shoff + i * sizeof(Elf64_Shdr), &sections[i])) facts.error = "the file is cut off";
  }
  for (const Elf64_Shdr& section : sections) {
    const uint64_t strings = section.sh_link < sections.size() ? sections[section.sh_link].sh_offset : 0;
    if (section.sh_type == SHT_NOTE && !facts.has_note) FindNote(bytes, section, &facts);
    if (section.sh_type == SHT_DYNSYM) AddExports(bytes, section, strings, &facts);
    if (section.sh_type == SHT_DYNAMIC) AddNeeds(bytes, section, strings, &facts);
  }
  return facts;
}

gf_transport_entry LoadEntry(const std::string& path, std::string* error) {
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* why = dlerror();
    *error = std::string("cannot be loaded: ") + (why != nullptr ? why : "");
    return nullptr;
  }
  void* entry = dlsym(handle, GF_TRANSPORT_ENTRY_NAME);
  if (entry == nullptr) *error = "does not export " GF_TRANSPORT_ENTRY_NAME;
  return reinterpret_cast<gf_transport_entry>(entry);
}

const gf_transport_descriptor* Enter(gf_transport_entry entry, std::string* error) {
  const gf_transport_entry_args args{sizeof(args), GF_TRANSPORT_EPOCH, GF_TRANSPORT_MINOR, 0};
  gf_transport_error why{};
  why.struct_size = sizeof(why);
  const gf_transport_descriptor* descriptor = entry(&args, &why);
  if (descriptor == nullptr) *error = "its entry refuses this host: " + std::string(why.text);
  return descriptor;
}

gf_transport_vtable VtableOf(const gf_transport_descriptor& descriptor) {
  gf_transport_vtable copy{};
  std::memcpy(&copy, descriptor.vtable, std::min<size_t>(descriptor.vtable->struct_size, sizeof(copy)));
  return copy;
}

}  // namespace gradferry::check
