// Finding and loading plugins: what is refused before it is loaded, with which words, and in which order places are
// tried. Bad plugins are made from the good one by changing bytes.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "impl/transport/elf_note.h"
#include "impl/transport/plugin.h"
#include "impl/transport/search.h"
#include "tests/unit/transport/transport_testing.h"

namespace gradferry::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kSimFile[] = "libgradferry_transport_sim.so";
constexpr char kPathVariable[] = "GRADFERRY_PLUGIN_PATH";

std::string ReadFile(const std::string& path) {
  std::string bytes(fs::file_size(path), '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(out.good()) << path;
}

// All places at once, so that what the linker has stored twice is changed twice.
std::string Replaced(std::string bytes, const std::string& from, const std::string& to) {
  EXPECT_EQ(from.size(), to.size());
  EXPECT_NE(bytes.find(from), std::string::npos) << from;
  for (size_t at = bytes.find(from); at != std::string::npos; at = bytes.find(from, at + to.size())) {
    bytes.replace(at, from.size(), to);
  }
  return bytes;
}

// The note as it stands in the file, with these numbers.
std::string NoteBytes(uint32_t epoch, uint32_t minor) {
  const gf_transport_note note = {
      10, 8, GF_TRANSPORT_NOTE_TYPE, {'G', 'r', 'a', 'd', 'f', 'e', 'r', 'r', 'y', 0, 0, 0}, epoch, minor};
  return std::string(reinterpret_cast<const char*>(&note), sizeof(note));
}

class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "gf_loader_XXXXXX";
    folder = ::mkdtemp(pattern.data());
    if (const char* before = std::getenv(kPathVariable)) path_variable = before;
    for (const PluginInfo& info : FindPlugins(PluginSearch())) {
      if (info.name == "sim") sim_path = info.path;
    }
    ASSERT_NE(sim_path, "") << "the sim plugin is not in " << kPathVariable;
    sim = ReadFile(sim_path);
  }

  void TearDown() override {
    if (path_variable) ::setenv(kPathVariable, path_variable->c_str(), 1);
    fs::remove_all(folder);
  }

  std::string Put(const std::string& name, const std::string& bytes) {
    const std::string path = folder + "/" + name;
    WriteFile(path, bytes);
    return path;
  }

  // Why this file is no plugin, or "" when it is one.
  std::string Refusal(const std::string& path, const std::string& name = "sim") {
    const auto plugin = LoadPlugin(path, name);
    return plugin.ok() ? "" : plugin.status().ToString();
  }

  Status Open(const std::string& name, const PluginSearch& search) {
    return OpenTransport(name, search, R"({"network": "loader"})", &host).status();
  }

  std::string folder;
  std::optional<std::string> path_variable;
  std::string sim_path;
  std::string sim;  // the good plugin's bytes
  Host host;
};

// ---- The note ----

TEST_F(LoaderTest, ThePluginsNoteIsRead) {
  const auto note = ReadPluginNote(sim_path);
  ASSERT_TRUE(note.ok()) << note.status().ToString();
  EXPECT_EQ(note->epoch, GF_TRANSPORT_EPOCH);
  EXPECT_EQ(note->minor, GF_TRANSPORT_MINOR);
}

TEST_F(LoaderTest, WhatIsNoPluginIsRefusedWithItsReason) {
  EXPECT_EQ(Refusal(folder + "/none.so"), "NOT_FOUND: no such file");
  EXPECT_EQ(Refusal(sim_path + "/below_a_file"), "NOT_FOUND: no such file");
  const std::string not_a_plugin = "INVALID_ARGUMENT: not a Gradferry transport plugin: ";
  EXPECT_EQ(Refusal(folder), not_a_plugin + "not a regular file");
  EXPECT_EQ(Refusal(Put("text.so", "just words\n")), not_a_plugin + "not an ELF file");
  EXPECT_EQ(Refusal(Put("empty.so", "")), not_a_plugin + "not an ELF file");
  EXPECT_EQ(Refusal(Put("start.so", sim.substr(0, 40))), not_a_plugin + "the file is cut off");
  EXPECT_EQ(Refusal(Put("headers.so", sim.substr(0, 100))), not_a_plugin + "the file is cut off");
  EXPECT_EQ(Refusal(Put("unnoted.so", Replaced(sim, NoteBytes(0, 0), std::string(sizeof(gf_transport_note), '\0')))),
            not_a_plugin + "it has no note named Gradferry");
}

TEST_F(LoaderTest, AFifoDoesNotKeepTheLoaderWaiting) {
  const std::string path = folder + "/fifo.so";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_NE(Refusal(path).find("not a regular file"), std::string::npos);
}

TEST_F(LoaderTest, AnOrdinaryLibraryIsNoPlugin) {
  Dl_info info;
  ASSERT_NE(dladdr(reinterpret_cast<void*>(&::fopen), &info), 0);
  const std::string path = folder + "/" + kSimFile;
  fs::copy_file("/proc/self/exe", path);
  EXPECT_NE(Refusal(path).find("no note named Gradferry"), std::string::npos) << Refusal(path);
  if (std::string(info.dli_fname).find(".so") == std::string::npos) return;  // linked statically
  EXPECT_NE(Refusal(info.dli_fname).find("no note named Gradferry"), std::string::npos) << info.dli_fname;
}

TEST_F(LoaderTest, AFileForAnotherMachineIsRefused) {
  auto with_byte = [&](size_t at, char value) {
    std::string bytes = sim;
    bytes[at] = value;
    return Refusal(Put("foreign.so", bytes));
  };
  EXPECT_NE(with_byte(4, 1).find("not a 64-bit file"), std::string::npos);
  EXPECT_NE(with_byte(5, 2).find("another byte order"), std::string::npos);
  EXPECT_NE(with_byte(16, 2).find("not a shared object"), std::string::npos);
  EXPECT_NE(with_byte(54, 8).find("program headers"), std::string::npos);
}

// A file in memory, for tests that need thousands of them.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("gf_loader", MFD_CLOEXEC)) {}
  ~MemoryFile() { ::close(fd_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void Set(const std::string& bytes) {
    ASSERT_EQ(::ftruncate(fd_, 0), 0);
    ASSERT_EQ(::pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }

 private:
  const int fd_;
};

TEST_F(LoaderTest, NoCutAndNoChangeOfTheHeadersDoesHarm) {
  MemoryFile file;
  file.Set(sim);
  ASSERT_TRUE(ReadPluginNote(file.path()).ok());
  const std::string start = sim.substr(0, 4096);
  const size_t head = 1024;  // headers and notes
  for (size_t length = 0; length < head; ++length) {
    file.Set(start.substr(0, length));
    (void)ReadPluginNote(file.path());
  }
  std::mt19937 random(1);
  for (int i = 0; i < 10000; ++i) {
    std::string mutant = start;
    for (int flips = 0; flips < 4; ++flips) mutant[random() % head] = static_cast<char>(random());
    file.Set(mutant);
    (void)ReadPluginNote(file.path());
  }
}

TEST_F(LoaderTest, SizesThatWouldWrapRoundAreRefused) {
  MemoryFile file;
  const std::string note = NoteBytes(0, 0);
  const std::string huge = "\xff\xff\xff\xff";
  file.Set(Replaced(sim, note, huge + note.substr(4)));  // of the name
  EXPECT_FALSE(ReadPluginNote(file.path()).ok());
  file.Set(Replaced(sim, note, note.substr(0, 4) + huge + note.substr(8)));  // of what it says
  EXPECT_FALSE(ReadPluginNote(file.path()).ok());
  file.Set(sim.substr(0, 32) + std::string(8, '\xff') + sim.substr(40));  // where the program headers are
  EXPECT_FALSE(ReadPluginNote(file.path()).ok());
}

TEST_F(LoaderTest, APluginOfAnotherEpochIsRefusedAndNeverLoaded) {
  const std::string path = Put(kSimFile, Replaced(sim, NoteBytes(0, 0), NoteBytes(7, 3)));
  EXPECT_EQ(Refusal(path), "UNSUPPORTED: it was made for transport epoch 7; this library has epoch 0");
  EXPECT_EQ(dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD), nullptr);
}

// ---- Loading ----

TEST_F(LoaderTest, AFileIsEnteredOnceByWhateverPathItIsNamed) {
  const std::string path = Put(kSimFile, sim);
  const std::string link = folder + "/another_name.so";
  fs::create_symlink(path, link);
  const auto first = LoadPlugin(path, "sim");
  const auto second = LoadPlugin(link, "sim");
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ((*first)->version, "0.1.0");
  EXPECT_NE((*first)->options_schema.find("latency_max_us"), std::string::npos);
}

TEST_F(LoaderTest, WhatTheLinkerSaysIsPassedOn) {
  const std::string path = Put(kSimFile, Replaced(sim, "libstdc++.so.6", "libabsent.so.6"));
  const std::string refusal = Refusal(path);
  EXPECT_NE(refusal.find("FAILED_PRECONDITION: cannot be loaded: "), std::string::npos) << refusal;
  EXPECT_NE(refusal.find("libabsent.so.6"), std::string::npos) << refusal;
  // It may be tried again.
  EXPECT_EQ(Refusal(path), refusal);
}

TEST_F(LoaderTest, APluginWithoutEntryIsRefused) {
  const std::string path = Put(kSimFile, Replaced(sim, std::string("\0gf_transport_entry_v0\0", 23),
                                                  std::string("\0gf_transport_entry_vX\0", 23)));
  EXPECT_EQ(Refusal(path), "INVALID_ARGUMENT: it does not export gf_transport_entry_v0");
}

TEST_F(LoaderTest, APluginUnderAnotherNameIsRefused) {
  const std::string path = Put("libgradferry_transport_other.so", sim);
  EXPECT_EQ(Refusal(path, "other"), "INVALID_ARGUMENT: it is the plugin 'sim', not 'other'");
}

// ---- The search ----

TEST_F(LoaderTest, AMissingPluginNamesEveryPlaceThatWasTried) {
  ::setenv(kPathVariable, "/tmp/from variable::/tmp/second", 1);
  PluginSearch search;
  search.folders = {"/tmp/from configuration", folder};
  const std::string text = Put("libgradferry_transport_absent.so", "words");
  const Status status = Open("absent", search);
  // A file that is no plugin says more than the places where there is none.
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_EQ(status.error()->domain, "transport.absent");
  const std::string own = fs::read_symlink("/proc/self/exe").parent_path().string();
  const std::string file = "/libgradferry_transport_absent.so: ";
  const std::vector<std::string> places = {
      "/tmp/from configuration" + file + "no such file",
      text + ": not a Gradferry transport plugin: not an ELF file",
      "/tmp/from variable" + file + "no such file",
      "/tmp/second" + file + "no such file",
      own + file + "no such file",
      own + "/gradferry/plugins" + file + "no such file",
      "/usr/local/lib/gradferry/plugins" + file + "no such file",
      "/usr/lib/gradferry/plugins" + file + "no such file",
  };
  std::string expected = "no usable plugin for the transport 'absent'; tried ";
  for (const std::string& place : places) expected += (place == places[0] ? "" : "; ") + place;
  EXPECT_EQ(status.message(), expected);
}

TEST_F(LoaderTest, AnExplicitPathIsTheOnlyPlace) {
  PluginSearch search;
  search.explicit_path = folder + "/mine.so";
  search.folders = {fs::path(sim_path).parent_path().string()};
  const Status missing = Open("sim", search);
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_EQ(missing.message(), "no usable plugin for the transport 'sim'; tried " + folder + "/mine.so: no such file");
  Put("mine.so", sim);
  EXPECT_TRUE(Open("sim", search).ok());
}

TEST_F(LoaderTest, FoldersComeInOrderAndAnUnfitFileIsPassedByWithAWarning) {
  LogCapture log;
  fs::create_directories(folder + "/a");
  fs::create_directories(folder + "/b");
  PluginSearch search;
  search.folders = {folder + "/a", folder + "/b"};
  Put(std::string("b/") + kSimFile, sim);
  EXPECT_TRUE(Open("sim", search).ok());
  EXPECT_EQ(log.text(), "");
  Put(std::string("a/") + kSimFile, "words");
  EXPECT_TRUE(Open("sim", search).ok());
  EXPECT_NE(log.text().find("using " + folder + "/b/"), std::string::npos) << log.text();
  EXPECT_NE(log.text().find("passed by " + folder + "/a/"), std::string::npos) << log.text();
}

TEST_F(LoaderTest, ANameCannotLeadElsewhere) {
  for (const char* name : {"", "../sim", "sim.so", "Sim", "a b", "sim/"}) {
    EXPECT_EQ(Open(name, PluginSearch()).code(), Code::kInvalidArgument) << name;
  }
}

TEST_F(LoaderTest, PluginsAreFoundByTheFirstFolderThatHasThemAndNotLoaded) {
  fs::create_directories(folder + "/a");
  fs::create_directories(folder + "/b");
  ::unsetenv(kPathVariable);
  PluginSearch search;
  search.folders = {folder + "/a", folder + "/nowhere", folder + "/b"};
  Put("a/libgradferry_transport_zeta.so", sim);
  Put("a/libgradferry_transport_broken.so", "words");
  Put("a/libgradferry_transport_.so", sim);
  Put("a/libother.so", sim);
  Put("b/libgradferry_transport_zeta.so", sim);
  Put("b/libgradferry_transport_alpha.so", sim);
  Put("b/libgradferry_transport_old.so", Replaced(sim, NoteBytes(0, 0), NoteBytes(9, 0)));
  std::vector<std::string> found;
  for (const PluginInfo& info : FindPlugins(search)) {
    // Others may stand beside this program.
    if (info.path.compare(0, folder.size(), folder) == 0) found.push_back(info.name + " " + info.path);
  }
  EXPECT_EQ(found, (std::vector<std::string>{"alpha " + folder + "/b/libgradferry_transport_alpha.so",
                                             "zeta " + folder + "/a/libgradferry_transport_zeta.so"}));
  EXPECT_EQ(dlopen((folder + "/a/libgradferry_transport_zeta.so").c_str(), RTLD_NOW | RTLD_NOLOAD), nullptr);
}

// ---- The descriptor ----

class DescriptorTest : public ::testing::Test {
 protected:
  DescriptorTest() {
    table.struct_size = sizeof(table);
    table.create = [](const gf_transport_host*, const char*, size_t, gf_transport**, gf_transport_error*) { return 0; };
    table.destroy = [](gf_transport*) {};
    table.listen = [](gf_transport*, const char*, size_t, char*, size_t, size_t*, gf_transport_error*) { return 0; };
    table.connect = [](gf_transport*, const char*, size_t, void*, gf_transport_conn**, gf_transport_error*) {
      return 0;
    };
    table.send = [](gf_transport_conn*, const gf_transport_frame*, void*, gf_transport_error*) { return 0; };
    table.close = [](gf_transport_conn*) {};
    table.shutdown = [](gf_transport*) {};
    descriptor.struct_size = sizeof(descriptor);
    descriptor.name = "made";
    descriptor.max_header = 10;
    descriptor.vtable = &table;
  }

  std::string Refusal() {
    const auto plugin = CheckDescriptor(&descriptor, "made.so");
    return plugin.ok() ? "" : plugin.status().ToString();
  }

  gf_transport_vtable table{};
  gf_transport_descriptor descriptor{};
};

TEST_F(DescriptorTest, OptionalFunctionsAreFilledIn) {
  const auto plugin = CheckDescriptor(&descriptor, "made.so");
  ASSERT_TRUE(plugin.ok()) << plugin.status().ToString();
  EXPECT_EQ(plugin->name, "made");
  EXPECT_EQ(plugin->vendor, "");
  EXPECT_NE(plugin->vtable.stats, nullptr);
  EXPECT_GT(plugin->vtable.now(nullptr), 0u);
  plugin->vtable.timer_set(nullptr, 1, 1);
  plugin->vtable.timer_cancel(nullptr, 1);
  plugin->vtable.hold(nullptr, 1);
}

TEST_F(DescriptorTest, EachMissingFunctionIsNamed) {
  table.send = nullptr;
  table.close = nullptr;
  EXPECT_EQ(Refusal(), "INVALID_ARGUMENT: its vtable lacks required functions: send, close");
}

TEST_F(DescriptorTest, AnOlderTableLacksWhatItIsTooShortFor) {
  table.struct_size = offsetof(gf_transport_vtable, shutdown);
  EXPECT_EQ(Refusal(), "INVALID_ARGUMENT: its vtable lacks required functions: shutdown");
  table.struct_size = offsetof(gf_transport_vtable, stats);
  EXPECT_EQ(Refusal(), "");
  table.struct_size = 4;
  EXPECT_NE(Refusal().find("vtable's struct_size is 4"), std::string::npos);
}

TEST_F(DescriptorTest, ANewerTableMayHaveMore) {
  struct {
    gf_transport_vtable known;
    void* unknown;
  } longer{table, this};
  longer.known.struct_size = sizeof(longer);
  descriptor.vtable = &longer.known;
  EXPECT_EQ(Refusal(), "");
}

TEST_F(DescriptorTest, WhoOwnsTimeNeedsItsFunctions) {
  descriptor.capabilities = GF_TRANSPORT_CAP_TIME;
  EXPECT_EQ(Refusal(), "INVALID_ARGUMENT: its vtable lacks required functions: now, timer_set, timer_cancel, hold");
}

TEST_F(DescriptorTest, EachMistakeIsNamed) {
  descriptor.epoch = 3;
  EXPECT_EQ(Refusal(), "UNSUPPORTED: it was made for transport epoch 3; this library has epoch 0");
  descriptor.epoch = GF_TRANSPORT_EPOCH;
  descriptor.struct_size = offsetof(gf_transport_descriptor, vtable);
  EXPECT_NE(Refusal().find("less than epoch 0 needs"), std::string::npos);
  descriptor.struct_size = 4;
  EXPECT_NE(Refusal().find("which holds nothing"), std::string::npos);
  descriptor.struct_size = sizeof(descriptor);
  descriptor.name = nullptr;
  EXPECT_NE(Refusal().find("no name"), std::string::npos);
  descriptor.name = "made";
  descriptor.max_header = 0;
  EXPECT_NE(Refusal().find("max_header is 0"), std::string::npos);
  descriptor.max_header = 1;
  descriptor.vtable = nullptr;
  EXPECT_NE(Refusal().find("no vtable"), std::string::npos);
  EXPECT_FALSE(CheckDescriptor(nullptr, "made.so").ok());
}

}  // namespace
}  // namespace gradferry::testing
