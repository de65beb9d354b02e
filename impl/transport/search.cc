// See search.h.
#include "impl/transport/search.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace gradferry {
namespace {

constexpr std::string_view kPrefix = "libgradferry_transport_";
constexpr std::string_view kSuffix = ".so";

// The file that holds this code: libgradferry.so, or the program that it is linked into. Empty when unknown.
std::string OwnFile() {
  Dl_info info;
  link_map* map = nullptr;
  if (dladdr1(reinterpret_cast<const void*>(&OwnFile), &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) {
    return "";
  }
  if (map != nullptr && map->l_name != nullptr && map->l_name[0] != '\0') return map->l_name;
  // The program itself: dladdr would give argv[0], which need not be a path.
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "";
}

std::string FolderOf(const std::string& file) {
  const size_t slash = file.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : file.substr(0, slash);
}

}  // namespace

bool IsTransportName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

std::string PluginFileName(std::string_view name) { return StrCat(kPrefix, name, kSuffix); }

std::optional<std::string> TransportNameOf(std::string_view file_name) {
  if (file_name.size() <= kPrefix.size() + kSuffix.size()) return std::nullopt;
  if (file_name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  if (file_name.substr(file_name.size() - kSuffix.size()) != kSuffix) return std::nullopt;
  const std::string_view name = file_name.substr(kPrefix.size(), file_name.size() - kPrefix.size() - kSuffix.size());
  if (!IsTransportName(name)) return std::nullopt;
  return std::string(name);
}

std::vector<std::string> PluginFolders(const PluginSearch& search) {
  std::vector<std::string> folders;
  auto add = [&](std::string folder) {
    if (folder.empty() || std::find(folders.begin(), folders.end(), folder) != folders.end()) return;
    folders.push_back(std::move(folder));
  };
  for (const std::string& folder : search.folders) add(folder);
  if (const char* variable = std::getenv("GRADFERRY_PLUGIN_PATH")) {
    std::string_view rest = variable;
    while (!rest.empty()) {
      const size_t colon = std::min(rest.find(':'), rest.size());
      add(std::string(rest.substr(0, colon)));
      rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
  }
  if (const std::string own = OwnFile(); !own.empty()) {
    add(FolderOf(own));
    add(FolderOf(own) + "/gradferry/plugins");
  }
  add("/usr/local/lib/gradferry/plugins");
  add("/usr/lib/gradferry/plugins");
  return folders;
}

std::vector<std::string> PluginCandidates(const std::string& name, const PluginSearch& search) {
  if (!search.explicit_path.empty()) return {search.explicit_path};
  std::vector<std::string> files;
  for (const std::string& folder : PluginFolders(search)) files.push_back(StrCat(folder, "/", PluginFileName(name)));
  return files;
}

}  // namespace gradferry
